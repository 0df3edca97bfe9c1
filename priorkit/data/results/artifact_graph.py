"""The artifacts of a report: those given by name, and those found by following their inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from priorkit.core.artifact import Artifact, digest_of
from priorkit.core.errors import InputError, Problems, nearest, rename_hint
from priorkit.core.inputs import Input, resolve
from priorkit.core.manifest import InputRecord
from priorkit.data.io.tables import read_table
from priorkit.data.number_table import NumberTable, is_empty, read_number_table
from priorkit.data.results.claim_results import ClaimResult
from priorkit.data.results.evaluations import LANGUAGE, RETRIEVAL, Evaluation, read_evaluation, read_results
from priorkit.data.results.named_artifacts import KINDS


@dataclass(frozen=True)
class Member:
    """An artifact of the report.

    Attributes:
        label: how the report calls it.
        artifact: where it is, with its manifest.
        given: whether the user named it; the others were found as inputs of those.
        color: number of its colour among the artifacts of its sort.
    """

    label: str
    artifact: Artifact
    given: bool
    color: int = 0

    @cached_property
    def digest(self) -> str:
        """The digest of its content."""
        return self.artifact.digest

    @property
    def step(self) -> str:
        """The step that made it."""
        return self.artifact.manifest.step

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The figures in its manifest."""
        return self.artifact.manifest.metrics

    @cached_property
    def evaluation(self) -> Evaluation:
        """Its results and items, for an evaluation."""
        return read_evaluation(self.artifact.path)

    @cached_property
    def table(self) -> dict[str, list[Any]]:
        """Its readable table, for scores."""
        return read_table(self.artifact.path / "table.parquet")


@dataclass(frozen=True)
class Members:
    """All artifacts of a report, in the order given, what was found behind them after.

    Attributes:
        all: the artifacts.
        priors: entity -> prior group, where a table of entities is known.
        seed: of the resampling.
        resamples: number of bootstrap samples.
        claims: what was decided about claims, in the order of their file.
    """

    all: Sequence[Member]
    priors: Mapping[str, str] = field(default_factory=dict[str, str])
    seed: int = 42
    resamples: int = 1000
    claims: Sequence[ClaimResult] = ()

    def beyond_claims(self) -> Members:
        """The artifacts that no claim was decided from, with what they were made from; all without claims."""
        used = {label for claim in self.claims for label in claim.artifacts}
        if not used:
            return self
        given = [member for member in self.all if member.given and member.label not in used]
        labels = {member.label for member in made_from(given, self.all)}
        return replace(
            self,
            all=[member for member in self.all if member.label in labels and member.label not in used],
            claims=(),
        )

    def evaluations(self) -> list[Member]:
        """Evaluations that were given, in order; of a variant with several seeds the first one."""
        return _first_seeds(self._given_evaluations())

    def repeats(self) -> dict[str, list[Member]]:
        """Evaluations by variant where at least two were given as ``VARIANT@SEED``."""
        return _by_variant(self._given_evaluations())

    def ranks(self) -> list[Member]:
        """Rank-e scores that were given, in order; of a variant with several seeds the first one."""
        return _first_seeds(self._given_ranks())

    def repeated_ranks(self) -> dict[str, list[Member]]:
        """Rank-e scores by variant where at least two were given as ``VARIANT@SEED``."""
        return _by_variant(self._given_ranks())

    def _given_evaluations(self) -> list[Member]:
        return [member for member in self.all if member.given and member.artifact.kind == "evaluation"]

    def _given_ranks(self) -> list[Member]:
        return [member for member in self.all if member.given and member.step == "rank-e"]

    def diagnoses(self) -> list[Member]:
        """Results of `diagnose` that were given, in order."""
        return [member for member in self.all if member.given and member.step == "diagnose"]

    def correlations(self) -> list[Member]:
        """Results of `correlate` that were given, in order."""
        return [member for member in self.all if member.given and member.step == "correlate"]


def _by_variant(members: Sequence[Member]) -> dict[str, list[Member]]:
    by_label = {member.label: member for member in members}
    return {
        name: [by_label[label] for label in labels]
        for name, labels in seeds_of_variants(by_label).items()
        if len(labels) > 1
    }


def _first_seeds(members: Sequence[Member]) -> list[Member]:
    later = {member.label for runs in _by_variant(members).values() for member in runs[1:]}
    return [member for member in members if member.label not in later]


def seed_of(label: str) -> str:
    """The seed of a label ``VARIANT@SEED``; all of any other label."""
    return label.rpartition("@")[2]


def variant_of(label: str) -> str:
    """The variant of a label ``VARIANT@SEED``; empty for other labels."""
    return label.rpartition("@")[0]


def seeds_of_variants(labels: Iterable[str]) -> dict[str, list[str]]:
    """Labels by variant, where at least two are ``VARIANT@SEED``; any other label by itself."""
    found: dict[str, list[str]] = {}
    for label in labels:
        found.setdefault(variant_of(label) or label, []).append(label)
    return {name if len(runs) > 1 else runs[0]: runs for name, runs in found.items()}


def gather(given: Mapping[str, Artifact]) -> list[Member]:
    """The given artifacts and all that can be found on this machine of what they were made from."""
    distinct = all(_sort(artifact) != "mixed" for artifact in given.values())
    sorts: dict[str, dict[str, int]] = {}
    members: list[Member] = []
    for label, artifact in given.items():
        sort = _sort(artifact) if distinct else artifact.manifest.step
        colors = sorts.setdefault(sort, {})
        color = colors.setdefault(variant_of(label) or label, len(colors))
        members.append(Member(label, artifact, True, color))
    seen = {member.digest for member in members}
    labels = {member.label for member in members}
    queue = list(members)
    while queue:
        for _, source in sources(queue.pop(0).artifact):
            owner = source.owner
            if owner is None or owner.digest in seen:
                continue
            seen.add(owner.digest)
            member = Member(_free(owner.path, labels), owner, False)
            labels.add(member.label)
            members.append(member)
            queue.append(member)
    return members


def _sort(artifact: Artifact) -> str:
    """What an artifact is compared with: others of its step; evaluations of text, retrieval and questions separately.

    ``mixed`` is an evaluation that belongs to several; none is then distinguished, so that colors stay unique.
    """
    if artifact.kind != "evaluation":
        return artifact.manifest.step
    sorts = {
        "text"
        if benchmark.primary in LANGUAGE
        else "retrieval"
        if benchmark.primary in RETRIEVAL
        else "questions"
        for benchmark in read_results(artifact.path).values()
    }
    return sorts.pop() if len(sorts) == 1 else "mixed"


def _free(path: Path, taken: set[str]) -> str:
    """A folder's name, with as many of its parents as make it one of a kind."""
    parts = path.resolve().parts
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[-count:])
        if name not in taken:
            return name
    return str(path)


def sources(artifact: Artifact) -> Iterator[tuple[InputRecord, Input]]:
    """The inputs of an artifact that are still on this machine, unchanged."""
    for record in artifact.manifest.inputs:
        source = locate(record, artifact.path)
        if source is not None:
            yield record, source


def locate(record: InputRecord, made: Path) -> Input | None:
    """Find an input where the run found it: its path as seen from here or from a folder above the artifact.

    What is there counts only if it is the same: by digest within an artifact, by sizes and times else.
    """
    given = Path(record.path).expanduser()
    bases = (Path(), *made.resolve().parents)
    for path in dict.fromkeys(base / given for base in bases):
        if not path.exists():
            continue
        try:
            candidate = resolve(str(path), record.setting, KINDS)
        except InputError:
            continue
        same = candidate.digest() == record.digest if candidate.owner else candidate.stamp() == record.stamp
        if same:
            return candidate
    return None


def owner_of(record: InputRecord, members: Sequence[Member]) -> Member | None:
    """The artifact that an input is or was a part of, known only by content."""
    exact = next((member for member in members if member.digest == record.digest), None)
    if exact is not None or not record.kind.startswith("part of "):
        return exact
    kind = record.kind.removeprefix("part of ")
    parts = Path(record.path).parts
    for member in members:
        if member.artifact.kind != kind:
            continue
        files = member.artifact.manifest.files
        for start in range(len(parts)):
            below = "/".join(parts[start:])
            part = {name: files[name] for name in files if name == below or name.startswith(below + "/")}
            if part and digest_of(part) == record.digest:
                return member
    return None


def made_from(members: Sequence[Member], behind: Sequence[Member]) -> list[Member]:
    """Artifacts and all that they were made from, each once, as far as they are among the members.

    Args:
        members: the artifacts.
        behind: all that are known.
    """
    found = {member.label: member for member in members}
    queue = list(members)
    while queue:
        for record in queue.pop().artifact.manifest.inputs:
            owner = owner_of(record, behind)
            if owner is not None and owner.label not in found:
                found[owner.label] = owner
                queue.append(owner)
    return list(found.values())


def entity_column(file: Path, column: str) -> dict[str, Any]:
    """One column of a table of entities (CSV, JSON Lines, parquet) by entity.

    Raises:
        InputError: the file cannot be read, lacks the columns, or an entity has no name or is there twice.
    """
    table = read_number_table(file)
    rows = entity_rows(table)
    if column not in table.columns:
        raise InputError(f"no column '{column}'", where=str(file), hint=nearest(column, table.columns))
    return {entity: table.columns[column][row] for entity, row in rows.items()}


def entity_rows(table: NumberTable) -> dict[str, int]:
    """The row of each entity, from 0.

    Raises:
        InputError: no column ``entity``, or entities without a name or twice.
    """
    if "entity" not in table.columns:
        raise InputError("no column 'entity'", where=table.name, hint=rename_hint("entity", table.columns))
    problems = Problems(InputError)
    rows: dict[str, int] = {}
    for row, entity in enumerate(table.columns["entity"]):
        if is_empty(entity):
            problems.add("the entity has no name", where=table.place(row, "entity"))
        elif str(entity) in rows:
            first = rows[str(entity)] + 1
            problems.add(f"'{entity}' is there twice, first in row {first}", where=table.place(row, "entity"))
        else:
            rows[str(entity)] = row
    problems.raise_if_any()
    return rows


def entities_file(members: Sequence[Member]) -> Path | None:
    """The table of entities of a world among the artifacts; None where there is none."""
    for member in members:
        file = member.artifact.path / "entities.parquet"
        if member.artifact.kind == "world" and file.is_file():
            return file
    return None


def prior_groups(members: Sequence[Member]) -> dict[str, str]:
    """Entity -> prior group, from a world among the artifacts; empty where there is none."""
    file = entities_file(members)
    return {name: str(prior) for name, prior in entity_column(file, "prior").items()} if file else {}


def prior_name(prior: str) -> str:
    """A prior group as written in tables and legends: ``weak prior``, ``no prior``."""
    return "no prior" if prior == "none" else f"{prior} prior"
