"""What a benchmark asks and what a model answers: one item, one answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from priorkit.data.images.decoding import ImageRef
from priorkit.scoring.answers.boxes import Box
from priorkit.scoring.answers.reasoning import final_answer


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a benchmark with its truth; which fields are filled depends on the task.

    Attributes:
        id: as the benchmark gives it, or the place in the file, from 0.
        question: the text asked.
        image: what is asked about; None for questions without an image.
        more_images: further images, in order.
        contexts: for choices that end in the same words: what precedes them, one per option.
        withheld: whether it has an image that is not shown.
        choices: the options of a choice.
        answer: index of the right option for a choice, ``yes`` or ``no``, or the one right text.
        answers: all accepted texts.
        references: reference captions.
        box: the true box, normalised corners.
        image_size: width and height of the upright image in pixels, where the answer is a box.
        text: the document (perplexity), the image's own text (retrieval), or a name (pointing).
        cluster: what identifies its image, also where it is withheld; empty without one.
        groups: values by which metrics are also reported separately.
        tags: tags of the image, where it was tagged.
        task_type: ``region-level`` or ``image-level``, where the benchmark says so.
        prediction: the raw answer, where it comes from a file of predictions.
        file: where the item was read; empty if it comes from no file.
        row: its row in the file, from 1.
    """

    id: str | int
    question: str = ""
    image: ImageRef | None = None
    more_images: tuple[ImageRef, ...] = ()
    contexts: tuple[str, ...] = ()
    withheld: bool = False
    choices: tuple[str, ...] = ()
    answer: int | str | None = None
    answers: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    box: Box | None = None
    text: str = ""
    cluster: str = ""
    groups: Mapping[str, str] = field(default_factory=dict[str, str])
    prediction: str | None = None
    tags: tuple[str, ...] | None = None
    task_type: str = ""
    image_size: tuple[int, int] | None = None
    file: str = ""
    row: int = 0

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """All images, in order."""
        return () if self.image is None else (self.image, *self.more_images)

    def truth(self) -> dict[str, Any]:
        """The truth under the names that files of predictions use."""
        fields: dict[str, Any] = {}
        if self.choices:
            fields["choices"] = list(self.choices)
        if self.answer is not None:
            fields["answer"] = self.answer
        if self.answers:
            fields["answers"] = list(self.answers)
        if self.references:
            fields["references"] = list(self.references)
        if self.box is not None:
            fields["box"] = list(self.box)
        return fields


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What a model gave for one item.

    Attributes:
        prediction: the raw text; for a choice by likelihood the option taken, as it was scored.
        prompt: what the model was asked, one placeholder for the image.
        taken: index of the option with the best score, where options were scored and not written.
        loglikelihoods: summed natural log-probabilities of the options, or of the full document.
        tokens: how many tokens each of them sums over.
        options: the texts that were scored: the options themselves, or their letters.
        rank: rank of the right text, for retrieval.
        hit: whether the most similar patch is a right one, for pointing; ``taken`` is its number.
        chance: the share of right patches, for pointing.
        image_tokens: positions that the images took in the prompt.
        turns: the answers with the options rotated by one, two and so on, for circular choices.
        text: the prediction without reasoning blocks, which is what tasks score.
    """

    prediction: str = ""
    prompt: str = ""
    taken: int | None = None
    loglikelihoods: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    options: tuple[str, ...] = ()
    rank: float = 0.0
    hit: bool = False
    chance: float = 0.0
    image_tokens: int = 0
    turns: tuple[ModelAnswer, ...] = ()
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", final_answer(self.prediction))
