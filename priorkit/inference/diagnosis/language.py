"""What a language model knows of a name without an image: whether it can say it, and facts about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorkit.data.images.entities import EntityImages
from priorkit.inference.diagnosis.asking import SHORT, Ask, Asker
from priorkit.inference.diagnosis.naming import BLOCK

if TYPE_CHECKING:
    from priorkit.inference.diagnosis.facts import Fact

Floats = NDArray[np.float64]

CONTEXTS = ("The", "This is the", "There is the")
"""Neutral contexts of a name."""


def name_log_probabilities(asker: Asker, names: Sequence[str]) -> Floats:
    """Natural log-probability of each whole name after each neutral context: ``[names, contexts]``.

    Not per token: a name of known words has probable tokens even where their sequence was never read. Whether the text
    of a world names an entity follows from it with an AUC of 0.96 (mean per token: 0.87) after tuning, in one world.
    """
    columns: list[list[float]] = []
    for context in CONTEXTS:
        ids, answers = asker.plain(context, names)
        asks = [Ask(ids, tuple(answers[start : start + BLOCK])) for start in range(0, len(names), BLOCK)]
        scores = asker.log_probabilities(asks, f"names after '{context}'")
        columns.append([value for values in scores for value in values])
    return np.array(columns).T


def fact_margins(asker: Asker, facts: Sequence[Fact]) -> Floats:
    """Log-probability per token of the true answer minus that of the best false one, with the name in the text.

    Per token, as answers of different length are compared that the model need not have seen in this form.

    Returns:
        ``[facts]`` in nats.
    """
    asks: list[Ask] = []
    for fact in facts:
        context, answers = asker.chat(
            f"{fact.about(fact.entity)}\n{SHORT}", (fact.true, *fact.false), image=False
        )
        asks.append(Ask(context, tuple(answers)))
    return _margins(asks, asker.log_probabilities(asks, "facts about names"))


def fact_margins_of_images(
    asker: Asker, facts: Sequence[Fact], entities: EntityImages, phrase: str, images: int
) -> list[Floats]:
    """The same with an image of the entity and a phrase instead of its name: of each fact ``[its images]``.

    Args:
        asker: asks the model.
        facts: about entities that have images.
        entities: what the images show.
        phrase: what the question calls the entity, such as ``one in the image``.
        images: most images per entity.
    """
    of_entity: dict[str, list[int]] = {}
    for image, entity in enumerate(entities.entity_of):
        shown = of_entity.setdefault(entities.entities[entity], [])
        if len(shown) < images:
            shown.append(image)
    asks: list[Ask] = []
    for fact in facts:
        question = fact.about(phrase)
        context, answers = asker.chat(f"{question}\n{SHORT}", (fact.true, *fact.false), image=True)
        shown = [entities.images[image] for image in of_entity[fact.entity]]
        asks += [Ask(context, tuple(answers), inputs) for inputs in asker.inputs(shown, question)]
    margins = _margins(asks, asker.log_probabilities(asks, "facts about images"))
    stops = np.cumsum([len(of_entity[fact.entity]) for fact in facts])
    return np.split(margins, stops[:-1])


def _margins(asks: Sequence[Ask], scores: Sequence[tuple[float, ...]]) -> Floats:
    margins: list[float] = []
    for ask, values in zip(asks, scores, strict=True):
        per_token = [value / len(answer) for value, answer in zip(values, ask.answers, strict=True)]
        margins.append(per_token[0] - max(per_token[1:]))
    return np.array(margins)


def unwritable_names(tokenizer: Any, names: Sequence[str]) -> list[str]:
    """Names that a tokenizer cannot write: decoded, their tokens are not the name, or one is unknown."""
    lost: list[str] = []
    for name in names:
        ids = tokenizer(name, add_special_tokens=False)["input_ids"]
        unknown = tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids
        written = "".join(tokenizer.decode(ids, skip_special_tokens=True).split())
        if unknown or written.casefold() != "".join(name.split()).casefold():
            lost.append(name)
    return lost
