"""One question for all labels: the answers are those of plain greedy generation, with images where the model sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from priorkit.core.errors import InputError
from priorkit.data.images.decoding import ImageRef
from priorkit.data.text.concepts import ABILITY_LABELS, CONCEPTS
from priorkit.inference.loading import load_model_adapter
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.labelling.language_models.generation import GenerationLabeller
from priorkit.labelling.language_models.prompts import GenerationPrompt, read_prompts
from priorkit.labelling.language_models.rendering import render


def prompt_of(model: ModelAdapter, texts: list[str], words: dict[str, str]) -> GenerationPrompt:
    """Labels named by what this random model happens to write about the texts."""
    return GenerationPrompt("", "Text: ", "\nLabels:", words, ("nothing",))


def written(model: ModelAdapter, before: str, text: str, after: str, new: int) -> str:
    """What transformers' own greedy decoding writes after the prompt."""
    (ids,) = model.document_encoder.ids([text])
    row = torch.tensor([[*model.prepend_bos(model.encode(before)), *ids, *model.encode(after)]])
    for _ in range(new):
        token = int(model.model(input_ids=row).logits[0, -1].argmax())
        if token in model.end_tokens:
            break
        row = torch.cat([row, torch.tensor([[token]])], dim=1)
    start = len(model.prepend_bos(model.encode(before))) + len(ids) + len(model.encode(after))
    return model.tokenizer.decode(row[0, start:], skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_scores_follow_greedy_answers(llm: ModelAdapter, batch_size: int, monkeypatch) -> None:
    texts = ["a red cat", "1 + 1 = 2 therefore", "two stars", "the blue cat sees"]
    expected = [written(llm, "Text: ", text, "\nLabels:", 6).strip().split("\n", 1)[0] for text in texts]
    seen: list[str] = []

    def parsed(answer: str, names: object, none: object) -> set[str] | None:
        seen.append(answer)
        return {"a"} if answer == expected[1] else None if answer == expected[2] else set()

    monkeypatch.setattr("priorkit.labelling.language_models.generation.parse_labels", parsed)
    labeller = GenerationLabeller(
        llm, prompt_of(llm, texts, {"a": "alpha", "b": "beta"}), "plain", batch_size, max_new_tokens=6
    )
    found = labeller.score(texts)
    assert seen == expected
    assert found.scores[:, 1].tolist() == [0, 0, 0, 0]
    assert found.scores[1, 0] == 1
    assert found.unparsed.tolist() == [answer == expected[2] and answer != expected[1] for answer in expected]
    assert not found.truncated.any()


def test_a_long_text_loses_its_middle_and_a_long_prompt_is_refused(llm: ModelAdapter) -> None:
    names = {"a": "alpha"}
    labeller = GenerationLabeller(llm, GenerationPrompt("", "Text: ", "?", names, ("x",)), "plain", 2, 4)
    found = labeller.score(["cat " * 2 * llm.max_length, "cat"])
    assert found.truncated.tolist() == [True, False]
    with pytest.raises(InputError, match="tokens and the answer 4"):
        GenerationLabeller(
            llm, GenerationPrompt("", "cat " * llm.max_length, "?", names, ("x",)), "plain", 2, 4
        )


def test_a_multimodal_model_is_shown_the_images(llava, images, monkeypatch) -> None:
    """The same words with different images go through the image part, one image each, before the text."""
    refs = images[:2]
    shown: list[tuple[ImageRef, ...]] = []
    from priorkit.labelling.language_models import generation

    original = generation.generate_batch

    def spied(model, rows, inputs, **options):
        shown.extend(row.images for row in inputs)
        image_id = model.multimodal.model.config.image_token_id
        for ids, row in zip(rows, inputs, strict=True):
            assert ids.count(image_id) == len(row.images) * model.multimodal.image_tokens
        return original(model, rows, inputs, **options)

    monkeypatch.setattr(generation, "generate_batch", spied)
    names = {name: name for name in ABILITY_LABELS.labels}
    prompt = GenerationPrompt("", "See: ", "?", names, ("others",))
    labeller = GenerationLabeller(llava, prompt, "plain", 4, max_new_tokens=2)
    found = labeller.score(["what is it"] * 3, [(refs[0],), (refs[1],), ()])
    assert sorted(len(each) for each in shown) == [0, 1, 1]
    assert {ref.name for each in shown for ref in each} == {"0.png", "1.png"}
    assert found.scores.shape == (3, 2)
    assert found.scores.dtype == np.float32


def test_shipped_prompts_name_every_label_once() -> None:
    for prompt in read_prompts(None, "generation").values():
        assert isinstance(prompt, GenerationPrompt)
        assert set(prompt.names) == set(CONCEPTS)
        whole = prompt.before + prompt.after
        assert "{" not in whole
        assert all(f"- {name}: " in whole for name in prompt.names.values())


def test_a_prompt_may_list_the_labels_itself_but_needs_the_text(tmp_path: Path) -> None:
    from priorkit.labelling.language_models import prompts

    shipped = Path(prompts.__file__).with_name("concepts-generation.toml").read_text()
    file = tmp_path / "p.toml"
    file.write_text(shipped.replace("{labels}", "any of six"))
    assert read_prompts(file, "generation")["chat"].before.count("any of six") == 1
    file.write_text(
        shipped.replace("{text}", "").replace('label = "math reasoning"', 'label = "code reasoning"')
    )
    with pytest.raises(InputError) as caught:
        read_prompts(file, "generation")
    assert "must appear in 'user' once, got 0" in str(caught.value)
    assert "'code reasoning' has two meanings" in str(caught.value)
    file.write_text(shipped.replace('none = ["None"]', 'yes = ["None"]'))
    with pytest.raises(InputError, match="the key 'none' is missing"):
        read_prompts(file, "generation")


def test_templates_that_take_parts_get_the_images_first(llava) -> None:
    tokenizer = llava.tokenizer
    before = tokenizer.chat_template
    tokenizer.chat_template = (
        "{% for m in messages %}{% for p in m['content'] %}"
        "{% if p['type'] == 'image' %}[I]{% else %}{{ p['text'] }}{% endif %}{% endfor %}{% endfor %}>"
    )
    try:
        assert render(tokenizer, "chat", "Be brief.", "a ", " z", 2, "<image>") == (
            "Be brief.[I][I]a ",
            " z>",
        )
    finally:
        tokenizer.chat_template = before


def test_the_golden_model_from_disk() -> None:
    from priorkit.architectures.registry import check_model

    folder = Path(__file__).parents[3] / "golden" / "tiny-llama"
    model = load_model_adapter(check_model(folder), torch.device("cpu"))
    prompt = GenerationPrompt("", "T: ", ":", {"a": "alpha"}, ("none",))
    found = GenerationLabeller(model, prompt, "plain", 2, 2).score(["x"])
    assert found.scores.shape == (1, 1)
