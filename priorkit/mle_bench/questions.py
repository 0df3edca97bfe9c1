"""MLE-Bench: four-choice questions about what appears in an image, by how much of it the target covers.

Source: "Learning to See Before Seeing" (arXiv 2509.26625), section on the Multi-Level Existence Bench.
The paper leaves open which object of an image is asked for; here, see :func:`choose_targets`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from priorkit.core.errors import InputError, Problems
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.entities import folded_name
from priorkit.mle_bench.annotations import AnnotatedImage, Placement
from priorkit.mle_bench.synonyms import Pair, Synonyms, pair_of

T = TypeVar("T")

BINS = {"existence_0-30": 0.3, "existence_30-60": 0.6, "existence_60-100": 1.0}
"""Bins, named as in the published data set, by their upper edge as a share of the image's pixels; a bin
holds its lower edge."""

QUESTIONS = (
    "Which of the following appears in this image?",
    "Which of the following is in the image?",
    "Which of the following can be seen in the image?",
)

OPTIONS = 4

LISTED = "{options}"
"""Placeholder of a wording for the four options, written ``a, b, c or d``."""


@dataclass(frozen=True, slots=True)
class Target:
    """The category that a question is about, and what else its image shows."""

    ref: ImageRef
    present: tuple[str, ...]
    name: str
    placement: Placement
    size: str


@dataclass(frozen=True, slots=True)
class ExistenceQuestion:
    """One question; ``answer`` is the text of the right option, as in lmms-eval."""

    target: Target
    text: str
    choices: tuple[str, ...]
    answer: str


def size_of(area: float) -> str:
    """The bin of a share of pixels.

    >>> size_of(0.1), size_of(0.3), size_of(1.0)
    ('existence_0-30', 'existence_30-60', 'existence_60-100')
    """
    return next((name for name, edge in BINS.items() if area < edge), list(BINS)[-1])


def choose_targets(images: Sequence[AnnotatedImage], seed: int, per_bin: int) -> list[Target]:
    """One target per image, and at most ``per_bin`` images of each bin (0 for all), in their order.

    An image whose categories fall into several bins goes to the one that the fewest images can fill;
    within it the category is drawn at random. The draw for an image depends only on the seed and its name,
    except for the filling of the bins.
    """
    able = Counter(size for image in images for size in {size_of(p.area) for p in image.measured.values()})
    targets: list[Target] = []
    for image in images:
        sizes = {name: size_of(placement.area) for name, placement in image.measured.items()}
        size = min(sizes.values(), key=lambda bin_name: (able[bin_name], list(BINS).index(bin_name)))
        names = sorted(name for name, bin_name in sizes.items() if bin_name == size)
        name = _generator(seed, "target", image.ref.name).choice(names)
        targets.append(
            Target(image.ref, (*image.measured, *image.unmeasured), name, image.measured[name], size)
        )
    if not per_bin:
        return targets
    chosen: set[int] = set()
    for size in BINS:
        of_size = [index for index, target in enumerate(targets) if target.size == size]
        of_size.sort(key=lambda index: _generator(seed, "keep", targets[index].ref.name).random())
        chosen.update(of_size[:per_bin])
    return [target for index, target in enumerate(targets) if index in chosen]


def wrong_options(
    target: Target, vocabulary: Sequence[str], synonyms: Synonyms, seed: int
) -> tuple[str, ...] | None:
    """Three wrong options for a target; None where the vocabulary has not enough.

    They are names of the data set that are not in the image, nor a synonym of anything in it, nor its
    head noun or the other way round (``table`` and ``coffee table``), nor synonyms of one another.
    """
    order = _generator(seed, "options", target.ref.name).sample(sorted(vocabulary), len(vocabulary))
    return _distinct(order, (), target.present, synonyms)


def _distinct(
    names: Sequence[str], taken: tuple[str, ...], shown: Sequence[str], synonyms: Synonyms
) -> tuple[str, ...] | None:
    """The first names that, with those taken, are as many as needed and mean nothing shown nor one another."""
    if len(taken) == OPTIONS - 1:
        return taken
    for index, name in enumerate(names):
        if any(synonyms.same(name, other) for other in (*shown, *taken)):
            continue
        # Backtrack: a name that is a synonym of all others must not block them.
        if rest := _distinct(names[index + 1 :], (*taken, name), shown, synonyms):
            return rest
    return None


def unsettled(
    targets: Sequence[Target], vocabulary: Sequence[str], synonyms: Synonyms, seed: int
) -> list[Pair]:
    """Pairs of names that must not mean the same for the options to be valid, and that are not judged yet.

    Once they are judged, other options may be drawn, with further pairs; where there are none left, the options
    are those that judging all pairs of the vocabulary would give.
    """
    pairs: set[Pair] = set()
    for target in targets:
        wrong = wrong_options(target, vocabulary, synonyms, seed) or ()
        for index, name in enumerate(wrong):
            others = (*target.present, *wrong[:index])
            pairs.update(pair_of(name, other) for other in others if not synonyms.settled(name, other))
    return sorted(pairs)


def build(
    targets: Sequence[Target],
    vocabulary: Sequence[str],
    synonyms: Synonyms,
    seed: int,
    wordings: Sequence[str] = QUESTIONS,
) -> tuple[list[ExistenceQuestion], list[Target]]:
    """Questions with right answers spread evenly over the places and the wordings, in every bin.

    Returns:
        The questions in the order of the targets, and the targets for which the vocabulary has not
        enough wrong options.
    """
    wrong = {target.ref.name: wrong_options(target, vocabulary, synonyms, seed) for target in targets}
    able = [target for target in targets if wrong[target.ref.name] is not None]
    slot_of: dict[str, int] = {}
    wording: dict[str, str] = {}
    for size in BINS:
        of_size = [target.ref.name for target in able if target.size == size]
        slot_of.update(
            zip(of_size, _spread(range(OPTIONS), len(of_size), seed, f"places-{size}"), strict=True)
        )
        wording.update(zip(of_size, _spread(wordings, len(of_size), seed, f"wordings-{size}"), strict=True))
    questions: list[ExistenceQuestion] = []
    for target in able:
        name = target.ref.name
        options = list(wrong[name] or ())
        options.insert(slot_of[name], target.name)
        listed = f"{', '.join(options[:-1])} or {options[-1]}"
        text = wording[name].replace(LISTED, listed)
        questions.append(ExistenceQuestion(target, text, tuple(options), target.name))
    return questions, [target for target in targets if wrong[target.ref.name] is None]


def _spread(values: Iterable[T], count: int, seed: int, purpose: str) -> list[T]:
    """So many values, each equally often but for one, in random order."""
    ordered = list(values)
    repeated = (ordered * (count // len(ordered) + 1))[:count]
    _generator(seed, purpose, "").shuffle(repeated)
    return repeated


def _generator(seed: int, purpose: str, name: str) -> random.Random:
    return random.Random(f"mle-bench/{seed}/{purpose}/{name}")


def read_wordings(path: Path) -> tuple[str, ...]:
    """Read wordings of the question, one per line; ``{options}`` in one is replaced by the options.

    Blank lines and lines that begin with ``#`` are ignored.

    Raises:
        InputError: the file cannot be read or has no wording, or one has another placeholder, ``{options}``
            twice, or is a duplicate, ignoring case and spaces; all such lines are named.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason} at byte {error.start}", where=str(path)) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    problems = Problems(InputError)
    wordings: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text, where = line.strip(), f"{path}:{number}"
        if not text or text.startswith("#"):
            continue
        rest = text.replace(LISTED, "", 1)
        if "{" in rest or "}" in rest:
            problems.add(
                f"a wording contains {LISTED} once or no braces, got '{text}'",
                where=where,
                hint="the target is the answer and cannot be part of the question",
            )
        elif not rest.strip():
            problems.add(f"the wording is only {LISTED}", where=where)
        elif folded_name(text) in wordings:
            problems.add(f"'{text}' is a duplicate, ignoring case and spaces", where=where)
        wordings.setdefault(folded_name(text), text)
    if not wordings:
        problems.add("the file holds no wording", where=str(path))
    problems.raise_if_any()
    return tuple(wordings.values())


def counts(questions: Sequence[ExistenceQuestion]) -> Mapping[str, int]:
    """How many questions each bin has."""
    sizes = Counter(question.target.size for question in questions)
    return {size: sizes[size] for size in BINS}
