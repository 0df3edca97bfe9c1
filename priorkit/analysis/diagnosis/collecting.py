"""Evidence of a model about entities: all that is asked of it and read from it, one value per image."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from priorkit.analysis.diagnosis.evidence import Estimates, Evidence, census, means, shares
from priorkit.inference.diagnosis.asking import SHORT, Asker
from priorkit.inference.diagnosis.language import (
    CONTEXTS,
    fact_margins,
    fact_margins_of_images,
    name_log_probabilities,
)
from priorkit.inference.diagnosis.naming import Naming, NamingQuestions, ask_names, draw_distractors
from priorkit.inference.diagnosis.states import ImageStates
from priorkit.scoring.diagnosis.readout import arbitration_margin
from priorkit.scoring.diagnosis.separability import name_retrieval, overlap_across, separability
from priorkit.scoring.representations.centroids import assign_folds

if TYPE_CHECKING:
    from pathlib import Path

    from priorkit.analysis.diagnosis.settings import DiagnoseSettings
    from priorkit.data.images.entities import EntityImages
    from priorkit.inference.diagnosis.facts import Fact

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
NEIGHBORS = (10, 50, 100)
"""Numbers of neighbors whose overlap across the projector is measured."""


@dataclass(frozen=True)
class Readings:
    """What was read of each image, in their order; reciprocal ranks of the own centroid are 1 where the probe is right.

    Attributes:
        entities: what the images show.
        naming: answers.
        right: ``[images]`` 1 where the own name is the most probable, else 0.
        encoder: ``[images]`` reciprocal rank in what the projector reads.
        projector: ``[images]`` in the projected tokens.
        layers: ``[images, layers]`` at the last position of the question.
        numbers: of these layers.
        retrieval: ``[images]`` reciprocal rank of the own name's embedding.
        margin: ``[images, layers]`` arbitration margin.
        overlap: number of neighbors -> ``[images]`` overlap across the projector.
        names: ``[entities, contexts]`` log-probability of the name per token.
        facts: those that were asked.
        named: ``[facts]`` margin with the name in the text.
        shown: of each fact the margins with images.
        left_out: measures that the model's family does not allow, with the reason.
    """

    entities: EntityImages
    naming: Naming
    right: Floats
    encoder: Floats
    projector: Floats
    layers: Floats
    numbers: Sequence[int]
    retrieval: Floats
    margin: Floats
    overlap: dict[int, Floats]
    names: Floats
    facts: Sequence[Fact] = ()
    named: Floats = field(default_factory=lambda: np.zeros(0))
    shown: Sequence[Floats] = ()
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])


def collect(
    settings: DiagnoseSettings, asker: Asker, entities: EntityImages, facts: Sequence[Fact], scratch: Path
) -> Readings:
    """Ask about every image and read the states along its way.

    Memory: features of the encoder and the projector for all images, a layer's states at a time; the answers are kept
    on disk while the run lasts.

    Args:
        settings: options.
        asker: asks the model.
        entities: what the images show; all names can be written by the tokenizer.
        facts: about these entities.
        scratch: folder for the layers' states.
    """
    distractors = draw_distractors(len(entities.entities), settings.distractors, settings.seed)
    questions = NamingQuestions(settings.question, settings.presence_question, settings.max_new_tokens)
    naming = ask_names(asker, entities, distractors, questions)
    prompt, _ = asker.chat(f"{settings.question}\n{SHORT}", (), image=True)
    states = asker.states(
        prompt, asker.inputs(entities.images, settings.question), naming.tokens, layers=settings.layers,
        scratch=scratch,
    )  # fmt: skip
    for measure, reason in states.left_out.items():
        logger.warning(f"{measure} is left out: {reason}")
    named, shown = np.zeros(0), list[Floats]()
    if facts:
        named = fact_margins(asker, facts)
        shown = fact_margins_of_images(asker, facts, entities, settings.image_phrase, settings.fact_images)
    return _probed(settings, asker, entities, naming, states, facts, named, shown)


def _probed(
    settings: DiagnoseSettings,
    asker: Asker,
    entities: EntityImages,
    naming: Naming,
    states: ImageStates,
    facts: Sequence[Fact],
    named: Floats,
    shown: Sequence[Floats],
) -> Readings:
    """The readings with the probes of all states."""
    group = entities.entity_of
    fold = assign_folds([ref.name for ref in entities.images], group, settings.folds, settings.seed)
    layers = [separability(states.layer(index), group, fold) for index in range(len(states.numbers))]
    margin = arbitration_margin(states.visual, states.prior)
    # The same first token says nothing of who wins.
    margin[[visual == prior for visual, prior in naming.tokens]] = np.nan
    encoder, projected = states.encoder, states.projected
    unknown = np.full(len(group), np.nan)
    overlap: dict[int, Floats] = {}
    if encoder is not None and projected is not None:
        overlap = overlap_across(encoder, projected, NEIGHBORS)
    names = None
    if projected is not None and "name_retrieval" not in states.left_out:
        names = asker.name_embeddings(entities.entities)
    return Readings(
        entities, naming, (naming.taken == np.array(group)).astype(np.float64),
        separability(encoder, group, fold) if encoder is not None else unknown,
        separability(projected, group, fold) if projected is not None else unknown,
        np.stack(layers, axis=1), states.numbers,
        name_retrieval(projected, names, group) if projected is not None and names is not None else unknown,
        margin, overlap,
        name_log_probabilities(asker, entities.entities), facts, named, shown, states.left_out,
    )  # fmt: skip


def evidence_of(
    readings: Readings,
    ranks: torch.Tensor | None,
    counts: Mapping[str, NDArray[np.int64]],
    *,
    seed: int,
    resamples: int,
) -> Evidence:
    """Evidence per entity with intervals.

    Args:
        readings: of all images.
        ranks: ``[images]`` Rank_e; None without a text tower.
        counts: ``[entities]`` rows that name each entity, of the captions and instructions that are given.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    entities, naming = readings.entities, readings.naming
    group, count = entities.entity_of, len(entities.entities)
    shown = np.array(group)

    def mean(values: Floats, of: Sequence[int] = group) -> Estimates:
        return means(values, of, count, seed=seed, resamples=resamples)

    number = {name: index for index, name in enumerate(entities.entities)}
    about = [number[fact.entity] for fact in readings.facts]
    contexts = [entity for entity in range(count) for _ in CONTEXTS]
    measures: dict[str, Estimates] = {}
    if ranks is not None:
        measures["rank_e"] = mean(1 / ranks.numpy())
    measures["encoder_separability"] = mean(readings.encoder)
    measures["name_log_probability"] = mean(readings.names.ravel(), contexts)
    if readings.facts:
        measures["fact_margin"] = mean(readings.named, about)
    measures["projector_change"] = mean(readings.projector - readings.encoder)
    measures["name_retrieval"] = mean(readings.retrieval)
    measures |= {data: census(rows) for data, rows in counts.items()}
    measures["presence_accuracy"] = shares(naming.presence, group, count)
    measures["readout_change"] = mean(readings.layers[:, -1] - readings.projector)
    measures["blind_accuracy"] = shares(naming.blind_taken == shown, group, count)
    measures["generation_accuracy"] = shares(naming.said == shown, group, count)
    if readings.facts:
        measures["fact_accuracy"] = shares(readings.named > 0, about, count)
    measures["likelihood_margin"] = mean(naming.likelihood_margin)
    measures["arbitration"] = mean(readings.margin[:, -1])
    # An entity with one image has no probe; some families do not allow all measures.
    measures = {name: values for name, values in measures.items() if np.isfinite(values.value).any()}
    return Evidence(
        list(entities.entities),
        np.bincount(shown, minlength=count).astype(np.int64),
        np.bincount(shown, weights=readings.right, minlength=count).astype(np.int64),
        shares(readings.right, group, count),
        measures,
    )
