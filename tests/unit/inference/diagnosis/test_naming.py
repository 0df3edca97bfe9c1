"""Names by likelihood against plain forward passes; names in written answers; questions whether a name is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from priorkit.core.errors import InputError
from priorkit.data.images.decoding import ImageRef, decode
from priorkit.data.images.entities import EntityImages
from priorkit.inference.diagnosis.asking import SHORT
from priorkit.inference.diagnosis.naming import NameFinder, NamingQuestions, ask_names, draw_distractors
from priorkit.inference.diagnosis.native import NativeAsker
from priorkit.inference.model_adapter import ModelAdapter

NAMES = ("blue square", "green triangle", "red circle")
QUESTIONS = NamingQuestions("What is shown in the image?", "Is there a {} in the image?", 8)


@pytest.fixture
def entities(images: list[ImageRef]) -> EntityImages:
    return EntityImages(NAMES, tuple(images), (0, 0, 1, 1, 2, 2))


def log_probability(
    llava: ModelAdapter, prompt: tuple[int, ...], answer: tuple[int, ...], image: ImageRef | None
) -> float:
    """By transformers' own forward pass, in one row."""
    multimodal = llava.multimodal
    assert multimodal is not None
    options = {}
    if image is not None:
        processor = multimodal.processor.image_processor
        options["pixel_values"] = processor(decode(image), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = multimodal.model(input_ids=torch.tensor([[*prompt, *answer]]), **options).logits[0].double()
    logs = logits.log_softmax(-1)
    return sum(float(logs[len(prompt) - 1 + place, token]) for place, token in enumerate(answer))


def test_names_are_compared_by_log_probability(
    llava: ModelAdapter, entities: EntityImages, tmp_path: Path
) -> None:
    asker = NativeAsker(llava, tmp_path, 4)
    distractors = draw_distractors(3, 2, 0)
    naming = ask_names(asker, entities, distractors, QUESTIONS)
    prompt, answers = asker.chat(f"{QUESTIONS.name}\n{SHORT}", NAMES, image=True)
    blind_prompt, blind_answers = asker.chat(f"{QUESTIONS.name}\n{SHORT}", NAMES, image=False)
    blind = [log_probability(llava, blind_prompt, answer, None) for answer in blind_answers]
    for row, (entity, image) in enumerate(zip(entities.entity_of, entities.images, strict=True)):
        values = np.array([log_probability(llava, prompt, answer, image) for answer in answers])
        assert naming.taken[row] == values.argmax()
        wrong = np.delete(values, entity).max()
        assert naming.likelihood_margin[row] == pytest.approx(values[entity] - wrong, abs=1e-3)
        assert naming.blind_taken[row] == int(np.argmax(blind))
        unseen = np.array(blind)
        unseen[entity] = -np.inf
        assert naming.tokens[row] == (answers[entity][0], answers[int(unseen.argmax())][0])
    assert len(naming.generated) == 6
    assert set(naming.presence) <= {0.0, 1.0}


def test_presence_compares_yes_with_another_name(
    llava: ModelAdapter, entities: EntityImages, tmp_path: Path
) -> None:
    asker = NativeAsker(llava, tmp_path, 4)
    distractors = draw_distractors(3, 1, 0)
    naming = ask_names(asker, entities, distractors, QUESTIONS)

    def odds(name: str, image: ImageRef) -> float:
        context, (yes, no) = asker.chat(
            f"Is there a {name} in the image?\nAnswer yes or no.", ("yes", "no"), image=True
        )
        return log_probability(llava, context, yes, image) - log_probability(llava, context, no, image)

    for row, (entity, image) in enumerate(zip(entities.entity_of, entities.images, strict=True)):
        expected = odds(NAMES[entity], image) > odds(NAMES[distractors[entity][0]], image)
        assert naming.presence[row] == expected


def test_answers_are_kept_while_the_run_lasts(
    llava: ModelAdapter, entities: EntityImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = NativeAsker(llava, tmp_path, 4)
    first = ask_names(asker, entities, draw_distractors(3, 2, 0), QUESTIONS)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model is asked again")

    monkeypatch.setattr(ModelAdapter, "forward", refuse)
    again = ask_names(NativeAsker(llava, tmp_path, 4), entities, draw_distractors(3, 2, 0), QUESTIONS)
    assert again.generated == first.generated
    assert np.array_equal(again.likelihood_margin, first.likelihood_margin)


def test_the_longest_name_is_found_and_case_does_not_matter() -> None:
    finder = NameFinder(["circle", "red circle", "Straße"])
    assert finder.first("It is a Red  Circle.") == 1
    assert finder.first("A circle, red circle") == 0
    assert finder.first("redcircles") == -1
    assert finder.first("die STRASSE") == 2
    assert finder.all("a circle and a red circle") == {0, 1}


def test_distractors_follow_from_seed_and_entity() -> None:
    drawn = draw_distractors(40, 5, 3)
    assert drawn == draw_distractors(40, 5, 3) != draw_distractors(40, 5, 4)
    assert all(len(set(others)) == 5 and entity not in others for entity, others in enumerate(drawn))


def test_a_prompt_longer_than_the_model_is_refused(llava: ModelAdapter, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the model takes"):
        NativeAsker(llava, tmp_path, 4).chat("What? " * 2000, ("a",), image=True)
