"""Tag images: by an encoder with thresholds per tag, or by a classifier; with noise for experiments.

The table's rows are written again with a column of tags, images embedded. Without a tagger, tags that are
there already are kept, which is how noise is put on true tags.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from priorkit.core import runtime
from priorkit.core.errors import InputError, Problems, UsageError, nearest
from priorkit.core.inputs import Input
from priorkit.core.progress import progress_bar
from priorkit.core.settings import RuntimeSettings, StepSettings, argument, option, reject_limit_option
from priorkit.core.step import Step
from priorkit.core.templates import check_templates
from priorkit.core.values import Count
from priorkit.core.work import Plan, Work
from priorkit.data.io.rejects import Rejects

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from priorkit.data.images.decoding import BrokenImageError
    from priorkit.data.io.tagged_tables import Row
    from priorkit.models.vision.tagger import Tagger, TaggerKind

logger = logging.getLogger(__name__)


class TagImagesSettings(RuntimeSettings, StepSettings):
    """Options of ``priorkit tag-images``."""

    step: ClassVar[str] = "tag-images"
    kind: ClassVar[str] = "instructions"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit tag-images world/instructions/train.parquet encoder --vocabulary world/names.txt "
        "--labelled world/captions/train.parquet --out tagged",
        "priorkit tag-images tagged/train.parquet --drop 0.3 --corrupt 0.2 --out noisy",
    )

    images: str = argument(
        "Table with a column 'image' (parquet, JSON, JSON Lines), folder of tables, or folder of images.",
        accepts=("world", "benchmark", "instructions"),
        metavar="IMAGES",
        hub="dataset",
    )
    tagger: str | None = argument(
        "Encoder with a text tower, or image-classification model; none to keep the tags that are there.",
        accepts=("encoder",),
        default=None,
        metavar="TAGGER",
        hub="model",
    )
    vocabulary: str | None = option(
        None,
        "File with a tag per line; for a classifier, the part of its labels to use.",
        accepts=("world",),
        metavar="FILE",
    )
    labelled: str | None = option(
        None,
        "Table with 'image' and true tags in --tags-column: odd rows calibrate a threshold per tag, even rows "
        "measure.",
        accepts=("world", "instructions", "benchmark"),
        metavar="TABLE",
    )
    threshold: float | None = option(
        None, "One threshold for all tags: cosine for an encoder, probability for a classifier (0.5)."
    )
    template: tuple[str, ...] = option(
        ("a photo of a {}",), "Text that stands for a tag before an encoder; repeat to average several."
    )
    most: Count = option(0, "Most tags of an image, the highest scores first; 0 for all.", metavar="N")
    tags_column: str = option("tags", "Column of the tags, made or read.", metavar="COLUMN")
    drop: float = option(0.0, "Probability that a tag is dropped, 0 to 1.", ge=0, le=1, advanced=True)
    corrupt: float = option(
        0.0,
        "Probability that a tag is replaced by a wrong one of the vocabulary, 0 to 1.",
        ge=0,
        le=1,
        advanced=True,
    )
    batch_size: int = option(64, "Images per forward pass.", ge=1)
    reject_limit: float = reject_limit_option("images")


@dataclass(frozen=True)
class _Job:
    files: tuple[Path, ...]
    tagger: TaggerKind | None
    vocabulary: tuple[str, ...]
    labelled: tuple[Path, ...]


def plan(settings: TagImagesSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check tables, tagger and vocabulary from headers."""
    from priorkit.data.io.rows import column_names
    from priorkit.data.io.tagged_tables import find_tables, has_column

    problems = Problems(UsageError)
    files = find_tables(inputs["images"].path)
    vocabulary: tuple[str, ...] = ()
    if "vocabulary" in inputs:
        vocabulary = read_vocabulary(inputs["vocabulary"].path)
    kind = None
    if "tagger" in inputs:
        from priorkit.models.vision.tagger import check_tagger

        kind = check_tagger(inputs["tagger"].path)
        if kind == "encoder" and not vocabulary:
            problems.add(
                "an encoder needs tags to look for", where="--vocabulary", hint="a file, a tag per line"
            )
        if kind == "encoder" and settings.threshold is None and "labelled" not in inputs:
            problems.add(
                "an encoder's cosines have no natural threshold",
                where="--labelled",
                hint="calibrate on a table with true tags, or give --threshold",
            )
    else:
        for name in ("labelled", "threshold"):
            if getattr(settings, name) is not None:
                problems.add(
                    "there is no tagger to set thresholds for", where=f"--{name}", hint="name a TAGGER"
                )
        if settings.corrupt and not vocabulary:
            problems.add(
                "wrong tags are drawn from a vocabulary", where="--vocabulary", hint="a file, a tag per line"
            )
    if settings.labelled and settings.threshold is not None:
        problems.add("thresholds are either calibrated or given", where="--threshold")
    check_templates(settings.template, problems, "tag")
    problems.raise_if_any()
    for file in files if kind is None else []:
        if not has_column(file, settings.tags_column):
            columns = [] if file.is_dir() else column_names(file)
            raise InputError(
                f"no column '{settings.tags_column}' to keep; got {', '.join(columns)}",
                where=str(file),
                hint=nearest(settings.tags_column, columns, only_close=True) or "name a TAGGER to make it",
            )
    labelled = tuple(find_tables(inputs["labelled"].path)) if "labelled" in inputs else ()
    for file in labelled:
        if not has_column(file, settings.tags_column):
            raise InputError(
                f"no column '{settings.tags_column}' with the true tags",
                where=str(file),
                hint="name it with --tags-column",
            )
    asked = any(not file.is_dir() and "question" in column_names(file) for file in files)
    return Plan(
        [
            ("images", ", ".join(file.name for file in files)),
            ("tagger", kind or "none; tags are kept"),
            (
                "vocabulary",
                f"{len(vocabulary)} tags" if vocabulary else "the model's labels" if kind else "none",
            ),
            ("thresholds", "calibrated" if labelled else str(settings.threshold or "")),
            ("noise", f"drop {settings.drop:g}, corrupt {settings.corrupt:g}"),
        ],
        payload=_Job(tuple(files), kind, vocabulary, labelled),
        kind="benchmark" if asked else "instructions",
    )


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Tags, one a line, without repetition; blank lines and lines from ``#`` on are passed over.

    Raises:
        InputError: not readable as text, or empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"not readable as text: {error}", where=str(path)) from None
    tags = [line.strip() for line in lines]
    found = tuple(dict.fromkeys(tag for tag in tags if tag and not tag.startswith("#")))
    if not found:
        raise InputError("no tag in the vocabulary", where=str(path))
    return found


def execute(settings: TagImagesSettings, work: Work) -> None:
    """Calibrate, tag, disturb, write."""
    import numpy as np

    from priorkit.data.io.tagged_tables import write_tagged
    from priorkit.scoring.answers.tagging import corrupt_tags

    job: _Job = work.plan.payload
    rejects = Rejects(settings.reject_limit)
    tagger, thresholds = None, np.zeros(0)
    if job.tagger is not None:
        from priorkit.models.vision.tagger import load_tagger

        device = runtime.start(settings.seed, settings.device, settings.precision).device
        tagger = load_tagger(
            work.inputs["tagger"].path, job.tagger, job.vocabulary, settings.template, device
        )
        thresholds = _thresholds(settings, job, tagger, rejects, work)
    vocabulary = job.vocabulary or (tagger.tags if tagger else ())
    counts: list[int] = []

    def tag(rows: Sequence[Row], file: Path) -> list[list[str] | BrokenImageError | None]:
        found: Sequence[list[str] | BrokenImageError | None]
        if tagger is None:
            found = [_held(row, settings.tags_column) for _, row in rows]
        else:
            found = _tagged(tagger, thresholds, rows, file, settings)
        noisy: list[list[str] | BrokenImageError | None] = []
        for (number, _), own in zip(rows, found, strict=True):
            if isinstance(own, list):
                seed = f"{settings.seed}/{file.name}/{number}"
                own = corrupt_tags(own, vocabulary, settings.drop, settings.corrupt, seed)
                counts.append(len(own))
            noisy.append(own)
        return noisy

    rows = 0
    with progress_bar("tag-images", len(job.files), unit="files") as progress:
        for file in job.files:
            target = work.path / f"{file.name.split('.')[0]}.parquet"
            if target.exists():
                raise InputError(f"two tables are called '{target.stem}'", where=str(file))
            rows += write_tagged(file, target, settings.tags_column, tag, rejects)
            progress.advance(1)
    rejects.raise_if_over_limit()
    rejects.write(work.path)
    if not counts:
        raise InputError("no row has an image", where=settings.images)
    work.metrics.update(
        rows=rows, tagged=len(counts), tags_per_image=sum(counts) / len(counts), rejected=len(rejects)
    )
    logger.info(f"  {len(counts)} images, {sum(counts) / len(counts):.2f} tags each")


def _held(row: dict[str, Any], column: str) -> list[str] | None:
    from priorkit.data.conversations.task_conversations import tags_of

    try:
        found = tags_of(row.get(column))
    except ValueError as error:
        raise InputError(str(error), where=column) from None
    return None if found is None else list(found)


def _scored(
    tagger: Tagger, rows: Sequence[Row], file: Path, batch_size: int, workers: int
) -> dict[int, NDArray[np.float64] | BrokenImageError]:
    """Scores of the rows that have an image, by place; the reason where it does not decode."""
    from priorkit.data.images.decoding import BrokenImageError, decode
    from priorkit.data.io.tagged_tables import row_image
    from priorkit.data.io.threads import in_threads

    def decoded(numbered: Row) -> Any:
        number, row = numbered
        try:
            reference = row_image(row, file, number)
            return None if reference is None else decode(reference)
        except BrokenImageError as error:
            return error

    images: dict[int, Any] = {}
    found: dict[int, NDArray[np.float64] | BrokenImageError] = {}
    for place, image in enumerate(in_threads(decoded, rows, workers)):
        if isinstance(image, BrokenImageError):
            found[place] = image
        elif image is not None:
            images[place] = image
    places = list(images)
    for start in range(0, len(places), batch_size):
        own = places[start : start + batch_size]
        values = tagger.score([images[place] for place in own]).double().numpy()
        found.update(zip(own, values, strict=True))
    return found


def _tagged(
    tagger: Tagger,
    thresholds: NDArray[np.float64],
    rows: Sequence[Row],
    file: Path,
    settings: TagImagesSettings,
) -> list[list[str] | BrokenImageError | None]:
    import numpy as np

    scored = _scored(tagger, rows, file, settings.batch_size, settings.workers)
    found: list[list[str] | BrokenImageError | None] = []
    for place in range(len(rows)):
        values = scored.get(place)
        if not isinstance(values, np.ndarray):
            found.append(values)
            continue
        chosen = [int(tag) for tag in np.argsort(-values, kind="stable") if values[tag] >= thresholds[tag]]
        found.append([tagger.tags[tag] for tag in chosen[: settings.most or None]])
    return found


def _thresholds(
    settings: TagImagesSettings, job: _Job, tagger: Tagger, rejects: Rejects, work: Work
) -> NDArray[np.float64]:
    """Given or calibrated; a calibration leaves tables and a plot."""
    import numpy as np

    if not job.labelled:
        given = settings.threshold if settings.threshold is not None else 0.5
        return np.full(len(tagger.tags), given)
    from priorkit.data.io.tables import write_table
    from priorkit.data.io.tagged_tables import rows_of
    from priorkit.scoring.answers.tagging import (
        calibrate_thresholds,
        precision_recall,
        precision_recall_curve,
    )

    number = {tag: place for place, tag in enumerate(tagger.tags)}
    scores: list[NDArray[np.float64]] = []
    truths: list[list[str]] = []
    for file in job.labelled:
        for rows in rows_of(file, rejects):
            scored = _scored(tagger, rows, file, settings.batch_size, settings.workers)
            for place, values in sorted(scored.items()):
                at, row = rows[place]
                if not isinstance(values, np.ndarray):
                    rejects.add(str(file), at, str(values))
                    continue
                rejects.accept()
                true = _held(row, settings.tags_column)
                if true is not None:
                    scores.append(values)
                    truths.append(true)
    truth = np.zeros((len(scores), len(number)), dtype=bool)
    for row, true in enumerate(truths):
        truth[row, [number[tag] for tag in true if tag in number]] = True
    if not truth[::2].any() or not truth[1::2].any():
        raise InputError(
            "the labelled table shows no tag of the vocabulary often enough",
            where=str(settings.labelled),
            hint="both its odd and its even rows need true tags that stand in the vocabulary",
        )
    values = np.stack(scores)
    thresholds = calibrate_thresholds(values[::2], truth[::2])
    curve = precision_recall_curve(values[1::2], truth[1::2])
    precision, recall = precision_recall(values[1::2] >= thresholds, truth[1::2])
    folder = work.path / "calibration"
    folder.mkdir(exist_ok=True)
    write_table(
        {"tag": tagger.tags, "threshold": thresholds, "positives": truth[::2].sum(0)},
        folder / "thresholds.parquet",
    )
    write_table(
        {"threshold": curve.threshold, "precision": curve.precision, "recall": curve.recall},
        folder / "sweep.parquet",
    )
    _plot(curve, precision, recall, folder / "precision_recall.png")
    work.metrics.update(precision=precision, recall=recall, labelled=len(scores))
    logger.info(f"  calibrated: precision {precision:.3f}, recall {recall:.3f} on the other half")
    return thresholds


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
