"""The corpora that a model was pretrained on, found by following the inputs of artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from priorkit.core.artifact import Artifact
from priorkit.core.errors import InputError
from priorkit.data.corpus.reader import read_corpus_header
from priorkit.data.results.artifact_graph import sources

PRETRAINING = "pretrain"


@dataclass(frozen=True)
class PretrainingRun:
    """One pretraining run.

    Attributes:
        corpus: the header of its corpus (``corpus.json``).
        where: the corpus's path.
        tokens: number of tokens trained on.
        parameters: of the model; 0 where the run does not say.
    """

    corpus: Mapping[str, Any]
    where: str
    tokens: float
    parameters: float


def pretraining_runs(evaluation: Artifact) -> list[PretrainingRun]:
    """All pretraining runs of an evaluation's model, most recent first.

    Raises:
        InputError: an artifact in between, or a corpus, is not on this machine or has changed.
    """
    runs: list[PretrainingRun] = []
    queue, seen = [evaluation], {evaluation.digest}
    while queue:
        artifact = queue.pop(0)
        present = {record.setting: item for record, item in sources(artifact)}
        for record in artifact.manifest.inputs:
            wanted = record.setting in ("model", "llm", "mllm", "from_llm", "base", "corpus")
            item = present.get(record.setting)
            owner = item.owner if item is not None else None
            if owner is None:
                if wanted and record.kind != "hub":
                    raise InputError(
                        f"{record.path}, from which {artifact.path} was made, is missing or has changed",
                        where=str(evaluation.path),
                        hint="bring it back, or give shares and scores with --table",
                    )
                continue
            if record.setting == "corpus" and artifact.manifest.step == PRETRAINING:
                tokens = float(artifact.manifest.metrics.get("tokens", 1))
                parameters = float(artifact.manifest.metrics.get("parameters", 0))
                runs.append(
                    PretrainingRun(read_corpus_header(owner.path), str(owner.path), tokens, parameters)
                )
            elif wanted and owner.digest not in seen:
                seen.add(owner.digest)
                queue.append(owner)
    if not runs:
        raise InputError(
            "its model was not pretrained by priorkit, so its mix is not known",
            where=str(evaluation.path),
            hint="give shares and scores with --table",
        )
    return runs


def pretraining_shares(evaluation: Artifact, names: tuple[str, ...] = ()) -> dict[str, float]:
    """Shares of the tokens that an evaluation's model was pretrained on.

    Args:
        evaluation: the artifact.
        names: sources or labels; if empty, all sources.

    Returns:
        Name -> share; over several pretraining runs weighted by their tokens.

    Raises:
        InputError: a corpus is missing, or none has a source or label with a name.
    """
    runs = pretraining_runs(evaluation)
    total = sum(run.tokens for run in runs) or 1.0  # a model of zero tokens has no shares
    shares: dict[str, float] = {}
    for run in runs:
        known = {**run.corpus.get("labels", {}), **run.corpus["shares"]}
        chosen = names or tuple(run.corpus["shares"])
        for name in chosen:
            shares[name] = shares.get(name, 0.0) + float(known.get(name, 0.0)) * run.tokens / total
    for name in names:
        if not any(name in {**run.corpus.get("labels", {}), **run.corpus["shares"]} for run in runs):
            raise InputError(
                f"no corpus behind it has a source or label '{name}'", where=str(evaluation.path)
            )
    return shares


def pretraining_scale(evaluation: Artifact) -> tuple[float, float]:
    """Parameters of an evaluation's model, and tokens that it was pretrained on in all its runs.

    Raises:
        InputError: a corpus is missing, or no run says how large the model is.
    """
    runs = pretraining_runs(evaluation)
    parameters = max(run.parameters for run in runs)
    if not parameters:
        raise InputError(
            "no run behind it says how many parameters its model has",
            where=str(evaluation.path),
            hint="leave out --scale, or give a table with --table",
        )
    tokens = sum(run.tokens for run in runs)
    if not tokens:
        raise InputError(
            "its model was trained on no token; laws are about trained ones",
            where=str(evaluation.path),
            hint="leave it out",
        )
    return parameters, tokens
