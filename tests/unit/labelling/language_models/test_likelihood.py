"""A causal LM's labels: scores equal a plain forward pass over the full prompt, whatever the batches."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from priorkit.architectures.registry import check_model
from priorkit.core.errors import InputError
from priorkit.data.text.concepts import CONCEPTS
from priorkit.inference.loading import load_model_adapter
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.labelling.base import MIN_SEGMENT_TOKENS, SegmentScores
from priorkit.labelling.language_models import likelihood
from priorkit.labelling.language_models.likelihood import LikelihoodLabeller
from priorkit.labelling.language_models.prompts import LikelihoodPrompt, read_prompts
from priorkit.models.language.causal_lm import build_config, build_llm
from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe

TOLERANCE = 1e-5
"""fp32 against float64, on a model whose activations are large."""

LEAST = MIN_SEGMENT_TOKENS

WORDS = [
    "the",
    "red",
    "cat",
    "sees",
    "two",
    "small",
    "blue",
    "stars",
    "x",
    "=",
    "f(y)",
    "+",
    "1",
    "therefore",
    "data",
    "proof",
    "loop",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelling")
    save_tokenizer(train_bpe([" ".join(WORDS) + " yes no Yes No Answer:"] * 8, 340), folder)
    return load_tokenizer(folder)


def subject_of(tokenizer, length: int = 256, **fields) -> ModelAdapter:
    """A random model with confident answers."""
    config = build_config(
        {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": length, "initializer_range": 0.4, **fields,
        },
        tokenizer,
    )  # fmt: skip
    return ModelAdapter(build_llm(config, 5).eval(), tokenizer, length)


@pytest.fixture(scope="module")
def subject(tokenizer) -> ModelAdapter:
    return subject_of(tokenizer)


def prompt(yes: tuple[str, ...] = (" yes", " Yes"), no: tuple[str, ...] = (" no", " No")) -> LikelihoodPrompt:
    after = {name: f"\n{name.replace('_', ' ')}?\nAnswer:" for name in CONCEPTS}
    return LikelihoodPrompt("Be sure.", "Text: ", after, yes, no)


def score(labeller: LikelihoodLabeller, texts: list[str], batch_size: int) -> SegmentScores:
    labeller.batch_size = batch_size
    return labeller.score(texts)


def texts(count: int = 23) -> list[str]:
    draw = random.Random(3)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randrange(1, 25))) for _ in range(count)]


def oracle(subject: ModelAdapter, text: str, label_prompt: LikelihoodPrompt) -> np.ndarray:
    """Each label, each spelling: the full sequence through the model in float64, one at a time."""
    model = subject.model.double()
    found = []
    for name in CONCEPTS:
        head = [
            subject.tokenizer(part, add_special_tokens=False)["input_ids"]
            for part in (label_prompt.before, text, label_prompt.after[name])
        ]
        context = [label_prompt for part in head for label_prompt in part]
        sides = []
        for spellings in (label_prompt.yes, label_prompt.no):
            total = 0.0
            for spelling in spellings:
                ids = subject.tokenizer(spelling, add_special_tokens=False)["input_ids"]
                with torch.no_grad():
                    logits = model(torch.tensor([context + ids])).logits[0]
                logprobs = torch.log_softmax(logits, -1)
                places = range(len(context) - 1, len(context) + len(ids) - 1)
                total += float(torch.exp(sum(logprobs[p, t] for p, t in zip(places, ids, strict=True))))
            sides.append(total)
        found.append(sides[0] / sum(sides))
    subject.model.float()
    return np.array(found)


@pytest.mark.parametrize(
    "label_prompt",
    [prompt(), prompt((" yes", " the red cat"), (" no", " two small stars", " Zq"))],
    ids=["single tokens", "several tokens"],
)
def test_scores_equal_a_plain_forward_pass(subject: ModelAdapter, label_prompt: LikelihoodPrompt) -> None:
    wanted = texts()
    found = score(LikelihoodLabeller(subject, label_prompt, "plain"), wanted, 7)
    expected = np.stack([oracle(subject, text, label_prompt) for text in wanted])
    np.testing.assert_allclose(found.scores, expected, atol=TOLERANCE)
    assert found.scores.dtype == np.float32
    assert not found.truncated.any()
    assert 0.05 < (found.scores > 0.5).mean() < 0.95, "a test that says nothing"


def test_scores_do_not_depend_on_batches_or_neighbours(subject: ModelAdapter) -> None:
    labeller = LikelihoodLabeller(subject, prompt(), "plain")
    wanted = texts()
    once = score(labeller, wanted, 4).scores
    np.testing.assert_allclose(score(labeller, wanted, 1).scores, once, atol=TOLERANCE)
    np.testing.assert_allclose(score(labeller, wanted[::-1], 23).scores[::-1], once, atol=TOLERANCE)
    assert score(labeller, wanted, 4).scores.tobytes() == once.tobytes()
    assert score(labeller, [], 4).scores.shape == (0, len(CONCEPTS))


def test_without_a_cache_the_scores_are_the_same(subject: ModelAdapter, monkeypatch, caplog) -> None:
    labeller = LikelihoodLabeller(subject, prompt(), "plain")
    wanted = texts(9)
    shared = score(labeller, wanted, 4).scores

    def refuse(self, contexts):
        raise NotImplementedError("no cache of that kind")

    monkeypatch.setattr(LikelihoodLabeller, "_cached_logits", refuse)
    apart = score(LikelihoodLabeller(subject, prompt(), "plain"), wanted, 4).scores
    np.testing.assert_allclose(apart, shared, atol=TOLERANCE)
    assert caplog.text.count("each question encodes the text again") == 1


@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
def test_other_families_agree_with_themselves_without_cache(tokenizer, kind: str, monkeypatch) -> None:
    """Learned positions, and a window of attention shorter than the prompt."""
    fields = {"model_type": kind}
    if kind == "gpt2":
        fields |= {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
    else:
        fields |= {"sliding_window": 16}
    own = subject_of(tokenizer, **fields)
    wanted = texts(9)
    labeller = LikelihoodLabeller(own, prompt(), "plain")
    shared = score(labeller, wanted, 4).scores
    monkeypatch.setattr(labeller, "_shares_cache", False)
    np.testing.assert_allclose(score(labeller, wanted, 1).scores, shared, atol=TOLERANCE)


def test_a_long_segment_loses_its_middle(tokenizer) -> None:
    subject = subject_of(tokenizer, 120)
    labeller = LikelihoodLabeller(subject, prompt(), "plain")
    ids = tokenizer(" ".join(texts(20)), add_special_tokens=False)["input_ids"]
    long = tokenizer.decode(ids)
    room = labeller._max_text
    assert LEAST <= room < len(ids)
    seen, cut = labeller._text_ids(long)
    assert cut
    assert seen == ids[: (room + 1) // 2] + ids[len(ids) - room // 2 :]
    found = score(labeller, [long, "the cat"], 2)
    assert found.truncated.tolist() == [True, False]
    assert np.isfinite(found.scores).all()
    with pytest.raises(InputError, match="the model takes 40 with the text"):
        LikelihoodLabeller(subject_of(tokenizer, 40), prompt(), "plain")


def test_names_of_special_tokens_in_a_text_are_ordinary_text(subject: ModelAdapter) -> None:
    labeller = LikelihoodLabeller(subject, prompt(), "plain")
    ids, _ = labeller._text_ids("a</s>b")
    assert subject.tokenizer.eos_token_id not in ids
    assert subject.tokenizer.decode(ids) == "a</s>b"
    assert subject.encode("</s>") == [subject.tokenizer.eos_token_id]


def test_calibration_corrects_by_content_free_inputs(subject: ModelAdapter) -> None:
    labeller = LikelihoodLabeller(subject, prompt(), "plain")
    plain = score(labeller, ["N/A", "", "[MASK]"], 3).scores.astype(np.float64)
    log_odds = labeller.calibrate()
    odds = np.log(plain / (1 - plain))
    np.testing.assert_allclose(log_odds, odds.mean(0), atol=1e-4)
    corrected = score(labeller, ["N/A", "", "[MASK]"], 3).scores.astype(np.float64)
    np.testing.assert_allclose(np.log(corrected / (1 - corrected)).mean(0), 0, atol=1e-4)
    np.testing.assert_array_equal(labeller.calibrate(), log_odds)


def test_chat_form_is_the_template_around_text_and_question(subject: ModelAdapter) -> None:
    """The text's tokens are between those of the rendered template."""
    short = prompt((" yes",), (" no",))
    labeller = LikelihoodLabeller(subject, short, "chat")
    template = "Be sure.\nUSER: Text: {}" + short.after["visual_concept"] + "\nASSISTANT:"
    before, after = template.split("{}")
    rendered = LikelihoodPrompt(
        "",
        before,
        {name: after.replace("visual concept", name.replace("_", " ")) for name in CONCEPTS},
        short.yes,
        short.no,
    )
    wanted = texts(5)
    plain = LikelihoodLabeller(subject, rendered, "plain")
    np.testing.assert_allclose(
        score(labeller, wanted, 2).scores, score(plain, wanted, 2).scores, atol=TOLERANCE
    )


def test_a_template_without_system_messages_gets_it_in_the_user_turn(
    tokenizer, subject: ModelAdapter
) -> None:
    import copy

    other = copy.deepcopy(tokenizer)
    other.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
        "[{{ messages[0]['content'] }}]"
    )
    before, after = likelihood._rendered(other, prompt(), "chat")
    assert before == "[Be sure.\n\nText: "
    assert after["math_reasoning"] == "\nmath reasoning?\nAnswer:]"
    other.chat_template = "{{ raise_exception('nothing here') }}"
    with pytest.raises(InputError, match="cannot be rendered"):
        likelihood._rendered(other, prompt(), "chat")


def test_yes_and_no_must_differ_in_tokens(subject: ModelAdapter) -> None:
    with pytest.raises(InputError, match="same tokens on both sides"):
        LikelihoodLabeller(subject, prompt((" yes",), (" yes",)), "plain")


def test_a_model_with_weights_from_disk() -> None:
    """The golden model, one token per byte: every answer has several."""
    subject = load_model_adapter(
        check_model(Path(__file__).parents[3] / "golden" / "tiny-llama"), torch.device("cpu")
    )
    label_prompt = LikelihoodPrompt("", "Well: ", dict.fromkeys(CONCEPTS, " Is it?"), (" yes",), (" no",))
    found = score(LikelihoodLabeller(subject, label_prompt, "plain"), ["a cat", "1 + 1"], 2)
    np.testing.assert_allclose(
        found.scores, np.stack([oracle(subject, t, label_prompt) for t in ["a cat", "1 + 1"]]), atol=TOLERANCE
    )


def test_the_shipped_prompt_is_complete() -> None:
    prompts = read_prompts()
    assert set(prompts) == {"chat", "plain"}
    for shipped in prompts.values():
        assert set(shipped.after) == set(CONCEPTS)
        assert all("{" not in text for text in (shipped.before, *shipped.after.values()))
        assert "spatial or part-whole" in shipped.after["visual_relationship"]
    assert prompts["plain"].yes[0] == " yes"


def test_a_prompt_file_is_refused_with_all_its_problems(tmp_path: Path) -> None:
    shipped = Path(likelihood.__file__).with_name("concepts-likelihood.toml").read_text()
    file = tmp_path / "p.toml"
    file.write_text(
        shipped.replace("[labels.code_reasoning]", "[labels.code_reasonin]").replace("system = ", "sistem = ")
    )
    with pytest.raises(InputError) as caught:
        read_prompts(file)
    text = str(caught.value)
    assert "unknown key 'code_reasonin'" in text
    assert "did you mean 'code_reasoning'" in text
    file.write_text(
        shipped.replace("sistem", "system")
        .replace("{text}", "{label}")
        .replace('" no", " No"', '" yes"')
        .replace("system = ", "sistem = ")
    )
    with pytest.raises(InputError) as caught:
        read_prompts(file)
    text = str(caught.value)
    for part in (
        "must appear in 'user' once, got 0",
        "must appear in 'text' once",
        "unknown key 'sistem'",
        "means both yes and no",
    ):
        assert part in text
    file.write_text(shipped.replace("\nText:\n{text}", "{label}\n{text}"))
    with pytest.raises(InputError, match="must come after"):
        read_prompts(file)
    file.write_text("x = [")
    with pytest.raises(InputError, match="not valid TOML"):
        read_prompts(file)
