"""Tag images: by an encoder with a threshold per tag, or by a classifier; with noise for experiments.

The table's rows are written with a column of tags and images embedded. Without a tagger, existing tags are
kept, so that noise can be added to true tags.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorkit.core.errors import InputError, Problems, UsageError, nearest
from priorkit.core.options.specs import refuse_changed
from priorkit.core.options.templates import check_templates
from priorkit.core.process import runtime
from priorkit.core.process.progress import progress_bar
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.data.io.rejects import Rejects
from priorkit.inference.images.tagging_settings import TagImagesSettings

if TYPE_CHECKING:
    from priorkit.data.images.decoding import BrokenImageError
    from priorkit.data.images.tagged_tables import Row
    from priorkit.inference.images.tagging import Scores, TableTagger
    from priorkit.models.vision.tagger import TaggerKind

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaggingPlan:
    """What ``plan`` read.

    Attributes:
        files: the tables, or folders of images.
        tagger: its kind; None without one.
        vocabulary: the tags; empty if not given.
        labelled: tables with true tags.
    """

    files: tuple[Path, ...]
    tagger: TaggerKind | None
    vocabulary: tuple[str, ...]
    labelled: tuple[Path, ...]


def plan(settings: TagImagesSettings, inputs: Inputs) -> Plan[TaggingPlan]:
    """Check tables, tagger and vocabulary from headers."""
    from priorkit.data.images.tagged_tables import find_tables
    from priorkit.data.io.rows import column_names
    from priorkit.models.vision.tagger import check_tagger

    files = find_tables(inputs.one("images").path, settings.layout)
    _refuse_equal_targets(files)
    file = inputs.optional("vocabulary")
    vocabulary = read_vocabulary(file.path) if file else ()
    model = inputs.optional("tagger")
    tagger = check_tagger(model.path, vocabulary) if model else None
    _check_options(settings, tagger, vocabulary)
    if vocabulary:
        settings.tag_thresholds(inputs, vocabulary)
    labelled = tuple(find_tables(inputs.one("labelled").path, settings.layout)) if settings.labelled else ()
    _check_tag_columns(settings.tags_column, () if tagger else files, labelled)
    benchmark = any(not file.is_dir() and "question" in column_names(file) for file in files)
    source = f"{len(vocabulary)} tags" if vocabulary else "the model's labels" if tagger else "none"
    return Plan(
        [
            ("images", ", ".join(file.name for file in files)),
            ("tagger", tagger or "none; tags are kept"),
            ("vocabulary", source),
            (
                "thresholds",
                "calibrated" if labelled else settings.thresholds or str(settings.threshold or ""),
            ),
            ("noise", f"drop {settings.drop:g}, corrupt {settings.corrupt:g}"),
        ],
        payload=TaggingPlan(tuple(files), tagger, vocabulary, labelled),
        kind="benchmark" if benchmark else "instructions",
    )


def _target_of(file: Path) -> str:
    """The name of the table that is written for one."""
    return file.name.split(".")[0]


def _refuse_equal_targets(files: Sequence[Path]) -> None:
    problems = Problems(InputError)
    for number, file in enumerate(files):
        if _target_of(file) in map(_target_of, files[:number]):
            problems.add(f"two tables are called '{_target_of(file)}'", where=str(file), hint="rename one")
    problems.raise_if_any()


def _check_options(
    settings: TagImagesSettings, tagger: TaggerKind | None, vocabulary: tuple[str, ...]
) -> None:
    """Raise for options that do not fit the tagger or each other."""
    problems = Problems(UsageError)
    file = "a file, a tag per line"
    if tagger == "encoder":
        if not vocabulary:
            problems.add("an encoder needs tags to score", where="--vocabulary", hint=file)
        if settings.threshold is None and not settings.labelled and not settings.thresholds:
            problems.add(
                "an encoder's cosines have no natural threshold",
                where="--labelled",
                hint="calibrate on a table with true tags, or give --threshold",
            )
    if tagger is None:
        unused = ("labelled", "threshold", "thresholds")
        refuse_changed(settings, unused, problems, "has no effect without a tagger", hint="name a TAGGER")
        if settings.corrupt and not vocabulary:
            problems.add("wrong tags are drawn from a vocabulary", where="--vocabulary", hint=file)
    if sum(given is not None for given in (settings.labelled, settings.threshold, settings.thresholds)) > 1:
        problems.add("thresholds are calibrated, one for all tags, or read from a file", where="--threshold")
    check_templates(settings.template, problems, "tag")
    problems.raise_if_any()


def _check_tag_columns(column: str, tagged: Sequence[Path], labelled: Sequence[Path]) -> None:
    """Raise for a table without the column of tags to keep, or of true tags."""
    from priorkit.data.images.tagged_tables import lacks_column
    from priorkit.data.io.rows import column_names

    for file in tagged:
        if lacks_column(file, column):
            columns = [] if file.is_dir() else column_names(file)
            raise InputError(
                f"no column '{column}' to keep; got {', '.join(columns)}",
                where=str(file),
                hint=nearest(column, columns, only_close=True) or "name a TAGGER to make it",
            )
    for file in labelled:
        if lacks_column(file, column):
            raise InputError(
                f"no column '{column}' with the true tags",
                where=str(file),
                hint="name it with --tags-column",
            )


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Tags, one per line, without repetition; blank lines and lines that begin with ``#`` are skipped.

    Raises:
        InputError: not readable as text, or empty.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"not readable as text: {error}", where=str(path)) from None
    stripped = [line.strip() for line in lines]
    tags = tuple(dict.fromkeys(line for line in stripped if line and not line.startswith("#")))
    if not tags:
        raise InputError("no tag in the vocabulary", where=str(path))
    return tags


def execute(settings: TagImagesSettings, work: Work[TaggingPlan]) -> None:
    """Calibrate, tag, add noise, write."""
    import numpy as np

    from priorkit.data.images.tagged_tables import write_tagged
    from priorkit.inference.images.tagging import present_tags
    from priorkit.scoring.answers.tagging import corrupt_tags

    planned = work.plan.payload
    rejects = Rejects(settings.reject_limit)
    tables: TableTagger | None = None
    thresholds: Scores = np.zeros(0)
    vocabulary = planned.vocabulary
    if planned.tagger is not None:
        tables = _load_tagger(settings, work, planned.tagger)
        thresholds = _thresholds(settings, work, tables, rejects)
        vocabulary = vocabulary or tables.tagger.tags
    counts: list[int] = []

    def tag(rows: Sequence[Row], file: Path) -> list[list[str] | BrokenImageError | None]:
        row_tags: list[list[str] | BrokenImageError | None]
        if tables is None:
            row_tags = [present_tags(row, settings.tags_column) for _, row in rows]
        else:
            row_tags = tables.tags(rows, file, thresholds, settings.most)
        for position, tags in enumerate(row_tags):
            if isinstance(tags, list):
                seed = f"{settings.seed}/{file.name}/{rows[position][0]}"
                row_tags[position] = noisy = corrupt_tags(
                    tags, vocabulary, settings.drop, settings.corrupt, seed
                )
                counts.append(len(noisy))
        return row_tags

    written = 0
    with progress_bar("tag-images", len(planned.files), unit="files") as progress:
        for file in planned.files:
            target = work.path / f"{_target_of(file)}.parquet"
            written += write_tagged(file, target, settings.tags_column, tag, rejects, settings.layout)
            progress.advance(1)
    rejects.raise_if_over_limit()
    rejects.write(work.path)
    if not counts:
        raise InputError("no row has an image", where=settings.images)
    mean = sum(counts) / len(counts)
    work.metrics.update(rows=written, tagged=len(counts), tags_per_image=mean, rejected=len(rejects))
    logger.info(f"  {len(counts)} images, {mean:.2f} tags each")


def _load_tagger(settings: TagImagesSettings, work: Work[TaggingPlan], kind: TaggerKind) -> TableTagger:
    from priorkit.inference.images.tagging import TableTagger
    from priorkit.models.vision.tagger import load_tagger

    device = runtime.start(settings.seed, settings.device, settings.precision).device
    vocabulary = work.plan.payload.vocabulary
    tagger = load_tagger(work.inputs.one("tagger").path, kind, vocabulary, settings.template, device)
    return TableTagger(tagger, settings.batch_size, settings.workers, settings.layout)


def _thresholds(
    settings: TagImagesSettings, work: Work[TaggingPlan], tables: TableTagger, rejects: Rejects
) -> Scores:
    """The thresholds ``[tags]``, given or calibrated; a calibration leaves tables and a plot."""
    import numpy as np

    labelled = work.plan.payload.labelled
    from_file = settings.tag_thresholds(work.inputs, tables.tagger.tags)
    if from_file is not None:
        return np.asarray(from_file)
    if not labelled:
        given = settings.threshold if settings.threshold is not None else 0.5
        return np.full(len(tables.tagger.tags), given)
    from priorkit.inference.images.tagging import calibrated

    try:
        calibration = calibrated(tables, labelled, settings.tags_column, rejects)
    except InputError as error:
        raise error.at(str(settings.labelled)) from None
    folder = work.path / "calibration"
    folder.mkdir(exist_ok=True)
    calibration.write(folder)
    _plot(calibration.curve, calibration.precision, calibration.recall, folder / "precision_recall.png")
    work.metrics.update(precision=calibration.precision, recall=calibration.recall, labelled=calibration.rows)
    logger.info(
        f"  calibrated: precision {calibration.precision:.3f}, recall {calibration.recall:.3f} on the other half"
    )
    return calibration.thresholds


def _plot(curve: Any, precision: float, recall: float, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    panel = figure.subplots()
    panel.plot(curve.recall, curve.precision, marker=".", label="one threshold for all tags")
    panel.plot([recall], [precision], "o", markersize=9, label="a threshold per tag")
    panel.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    panel.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})


STEP = Step(TagImagesSettings, plan, execute)
run = STEP.run
