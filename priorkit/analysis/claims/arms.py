"""The artifacts of a claim: which are there, with which seeds, and whether seeds differ in nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from priorkit.analysis.claims.base import Term
from priorkit.analysis.claims.reading import Claim
from priorkit.core.errors import InputError, Problems
from priorkit.core.manifest import InputRecord
from priorkit.data.results.artifact_graph import Member, owner_of, seed_of, variant_of

Runs = Mapping[str, Member]
"""The artifacts of one label by seed; the seed is empty for an artifact that serves for all seeds."""

_ANSWERS = ("evaluate", "predictions")
"""Step and input that hold a model's answers: an outcome of the seed. That seeds answer the same items is checked
with their scores."""


@dataclass(frozen=True)
class Arms:
    """The artifacts of a claim.

    Attributes:
        seeds: names of the seeds, the same for all labels that have seeds.
        runs: label -> its artifacts.
    """

    seeds: Sequence[str]
    runs: Mapping[str, Runs]

    def of(self, label: str, seed: str) -> Member:
        """The artifact of a label for a seed."""
        runs = self.runs[label]
        return runs.get(seed) or runs[""]

    @property
    def all(self) -> list[Member]:
        """All artifacts, each once."""
        return [member for runs in self.runs.values() for member in runs.values()]


def runs_by_label(members: Sequence[Member]) -> dict[str, dict[str, Member]]:
    """The given artifacts by label and seed: ``LABEL@SEED``, or ``LABEL`` for all seeds."""
    runs: dict[str, dict[str, Member]] = {}
    for member in members:
        if member.given:
            variant = variant_of(member.label)
            seed = seed_of(member.label) if variant else ""
            runs.setdefault(variant or member.label, {})[seed] = member
    return runs


def missing_labels(claim: Claim, runs: Mapping[str, Runs]) -> list[str]:
    """Labels that a claim needs and that were not given."""
    return [label for label in claim.labels() if label not in runs]


def not_begun(claim: Claim, others: Sequence[Claim], runs: Mapping[str, Runs]) -> str:
    """Why a claim counts as not run; empty where it was: where an artifact is there that no other claim uses.

    Artifacts that claims share say nothing about each of them: with only such, all must be there, with its benchmarks.
    """
    shared = {label for other in others if other.id != claim.id for label in other.labels()}
    labels = claim.labels()
    if any(label in runs and label not in shared for label in labels):
        return ""
    missing = missing_labels(claim, runs)
    if len(missing) == len(labels):
        return "none of its artifacts were given"
    if missing:
        return f"no artifacts of {', '.join(missing)}"
    lacking = {
        f"{term.label} was not evaluated on {benchmark}": None
        for term in claim.terms()
        for member in runs.get(term.label, {}).values()
        for benchmark in term.benchmarks
        if member.artifact.kind == "evaluation" and benchmark not in member.evaluation.benchmarks
    }
    return "; ".join(lacking)


def arms_of(
    claim: Claim, runs: Mapping[str, Runs], members: Sequence[Member], ignored: Collection[str]
) -> Arms:
    """Check the artifacts of a claim and put them together.

    Args:
        claim: the claim.
        runs: all artifacts that were given, by label and seed.
        members: all artifacts, those found behind the given ones too.
        ignored: settings in which seeds may differ.

    Raises:
        InputError: artifacts are missing or of another kind, seeds are too few or not the same for all labels,
            or seeds differ in other settings; all problems at once.
    """
    problems = Problems(InputError)
    where = f"claim {claim.id}"
    used = {label: runs[label] for label in claim.labels() if label in runs}
    for label in missing_labels(claim, runs):
        problems.add(
            f"no artifact '{label}' was given", where=where,
            hint=f"add {label}@SEED=ARTIFACT for each seed, or leave out all artifacts that only this claim uses",
        )  # fmt: skip
    for term in claim.terms():
        for member in used.get(term.label, {}).values():
            _check_kind(member, term, where, problems)
    seeds = _common_seeds(claim, used, where, problems)
    for label, seeded in used.items():
        first, *rest = seeded.items()
        for seed, member in rest:
            for difference in differences(first[1], member, members, ignored):
                problems.add(
                    f"'{label}' differs in more than its seed: {difference} (seed {first[0]}, then seed {seed})",
                    where=where, hint="run all seeds with the same settings and data",
                )  # fmt: skip
    problems.raise_if_any()
    return Arms(seeds, used)


def _check_kind(member: Member, term: Term, where: str, problems: Problems) -> None:
    fits = member.step == "rank-e" if term.source == "ranks" else member.artifact.kind == "evaluation"
    wanted = "scores made by rank-e" if term.source == "ranks" else "an evaluation"
    if not fits:
        problems.add(
            f"'{member.label}' should be {wanted}, got {member.artifact.kind} made by {member.step}",
            where=where,
        )


def _common_seeds(claim: Claim, used: Mapping[str, Runs], where: str, problems: Problems) -> list[str]:
    """The seeds of the labels that have seeds; problems where they differ or are too few."""
    seeded = {label: list(runs) for label, runs in used.items() if "" not in runs}
    for label, runs in used.items():
        if "" in runs and len(runs) > 1:
            problems.add(
                f"'{label}' was given with and without seeds", where=where, hint="give one or the other"
            )
    known = list(dict.fromkeys(seed for seeds in seeded.values() for seed in seeds))
    for label, seeds in seeded.items():
        lacking = [seed for seed in known if seed not in seeds]
        if lacking:
            problems.add(
                f"'{label}' lacks seed {', '.join(lacking)}", where=where,
                hint=f"others have seeds {', '.join(known)}; give all arms the same seeds",
            )  # fmt: skip
    if used and len(known) < claim.stated.seeds:
        problems.add(
            f"{claim.stated.seeds} seeds are stated, got {len(known)}" + (f" ({', '.join(known)})" if known else ""),
            where=where, hint="run more seeds, and name them LABEL@SEED",
        )  # fmt: skip
    return known


def differences(
    first: Member, second: Member, members: Sequence[Member], ignored: Collection[str]
) -> list[str]:
    """In what two artifacts differ other than their seeds, in words: settings, and those of what they were made from.

    What is no longer on this machine cannot be followed.

    Args:
        first: an artifact.
        second: one that should be the same but for its seed.
        members: all known artifacts.
        ignored: settings that may differ.
    """
    return list(dict.fromkeys(_differences(first, second, members, {"seed", *ignored}, set())))


def _differences(
    first: Member,
    second: Member,
    members: Sequence[Member],
    ignored: Collection[str],
    seen: set[tuple[str, str]],
) -> Iterator[str]:
    pair = (first.label, second.label)
    if first.label == second.label or pair in seen:
        return
    seen.add(pair)
    one, other = first.artifact.manifest, second.artifact.manifest
    if one.step != other.step:
        yield f"made by {one.step} and by {other.step}"
        return
    inputs = {record.setting.partition(".")[0] for record in (*one.inputs, *other.inputs)}
    for key in dict.fromkeys([*one.settings, *other.settings]):
        if key not in inputs and key not in ignored and one.settings.get(key) != other.settings.get(key):
            yield f"{one.step}: {key} is {one.settings.get(key)}, then {other.settings.get(key)}"
    theirs = {record.setting: record for record in other.inputs}
    for record in one.inputs:
        if record.setting not in theirs:
            yield f"{one.step}: only one has the input {record.setting}"
        else:
            yield from _input_differences(one.step, record, theirs[record.setting], members, ignored, seen)
    ours = {record.setting for record in one.inputs}
    yield from (f"{one.step}: only one has the input {name}" for name in theirs if name not in ours)


def _input_differences(
    step: str, record: InputRecord, other: InputRecord, members: Sequence[Member], ignored: Collection[str],
    seen: set[tuple[str, str]],
) -> Iterator[str]:  # fmt: skip
    if record.digest == other.digest or (step, record.setting) == _ANSWERS:
        return
    owners = owner_of(record, members), owner_of(other, members)
    if owners[0] is not None and owners[1] is not None and owners[0].label != owners[1].label:
        yield from _differences(owners[0], owners[1], members, ignored, seen)
    elif (
        owners[0] is not None
        or record.kind in ("file", "directory", "files", "hub")
        or record.kind != other.kind
    ):
        yield f"{step}: the input {record.setting} has other content"
