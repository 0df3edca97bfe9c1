"""Sections and the page: what is shown when, and that the page needs nothing but itself."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from priorkit.core.artifact import Artifact
from priorkit.core.errors import InputError
from priorkit.data.io.tables import write_table
from priorkit.data.results.artifact_graph import Member, Members, gather, prior_groups
from priorkit.report import figures, page
from priorkit.report.blocks import Gallery, SignedInterval, Table
from priorkit.report.plots.correlation import accuracy_scatter
from priorkit.report.sections.base import build_sections
from priorkit.report.sections.evaluations.comparison import differences_section, language_section
from priorkit.report.sections.evaluations.examples import examples_section
from priorkit.report.sections.evaluations.mle import mle_section
from priorkit.report.sections.priors.ranks import off_domain_section, ranks_section, ratio_of_means
from priorkit.report.sections.priors.trade_off import trade_off_section
from priorkit.report.sections.runs import read_curve, smoothed
from priorkit.report.shared_items import group_by_shared_items, mean_of_benchmarks

BEFORE = [2.0, 3, 2, 4, 20, 25, 30, 18, 40, 55, 60, 48]
AFTER = [2.0, 3, 3, 4, 8, 9, 12, 7, 14, 20, 18, 15]
ENTITIES = tuple(f"sign {number:02d}" for number in range(12))
FIRST = [True] * 6 + [False] * 6
SECOND = [True] * 9 + [False] * 3


def table(section, name: str) -> Table:
    return next(block for block in section.blocks if isinstance(block, Table) and block.name == name)


def members_of(given: dict) -> Members:
    found = gather(given)
    return Members(found, prior_groups(found), seed=1, resamples=100)


@pytest.fixture
def everything(make) -> Members:
    world = make.world()
    naming = world.path / "benchmarks" / "naming.parquet"
    text = {"facts": {"metrics": {"perplexity": {"value": 8.0, "low": 4.0, "high": 16.0}}, "items": 3}}
    parts = {
        "sub_task": {"0-30": {"metrics": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}, "items": 6}}
    }
    mle = {
        "mle": {"metrics": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}, "items": 6, "groups": parts}
    }
    found = {"pairs": {"metrics": {"mrr": {"value": 0.5, "low": 0.4, "high": 0.6}}, "items": 6}}
    return members_of(
        {
            "before": make.ranks("r1", BEFORE, world.path / "images"),
            "after": make.ranks("r2", AFTER, world.path / "images"),
            "<b>first</b>": make.evaluation("e1", {"naming": FIRST, "other": FIRST}, naming, extra=mle),
            "second": make.evaluation("e2", {"naming": SECOND}, naming),
            "text": make.evaluation("e3", {}, extra=text),
            "pairs": make.evaluation("e4", {}, extra=found),
            "llm": make.llm(make.corpus()),
        }
    )


class Resources(HTMLParser):
    """Collects what a page would fetch, and its ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []
        assert tag not in ("script", "link", "iframe", "object", "embed")
        self.links += [value for name in ("src", "href", "xlink:href") if (value := values.get(name))]


def test_sections_appear_with_their_artifacts(make, everything: Members) -> None:
    assert [section.anchor for section in build_sections(everything)] == [
        *("findings", "rank-e", "off-domain", "accuracy", "mle-bench", "differences", "language", "examples"),
        *("lineage", "mixtures", "training", "cost", "provenance"),
    ]
    only_corpus = members_of(
        {"corpus": next(m.artifact for m in everything.all if m.artifact.kind == "corpus")}
    )
    assert [section.anchor for section in build_sections(only_corpus)] == [
        "findings",
        "lineage",
        "mixtures",
        "cost",
        "provenance",
    ]


def test_the_page_needs_nothing_but_itself(everything: Members, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    page.write(build_sections(everything), "A <title> & more", folder)
    text = (folder / page.PAGE).read_text(encoding="utf-8")
    found = Resources(text)
    outside = [link for link in found.links if not link.startswith(("#", "data:image/png;base64,"))]
    assert all((folder / link).is_file() for link in outside)
    assert not re.search(r"url\((?!#)|@import", text)
    assert len(found.ids) == len(set(found.ids))
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert "<title>A &lt;title&gt; &amp; more</title>" in text
    assert "<b>first" not in text
    assert "&lt;b&gt;first&lt;/b&gt;" in text
    assert "What is &lt;this&gt;?" in text
    for plot in sorted((folder / "plots").glob("*.svg")):
        ElementTree.parse(plot)
        assert plot.with_suffix(".png").is_file()


def test_the_page_is_the_same_every_time(everything: Members, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        page.write(build_sections(everything), "Title", tmp_path / name)
    files = [p.relative_to(tmp_path / "one") for p in sorted((tmp_path / "one").rglob("*")) if p.is_file()]
    assert len(files) > 10
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_change_of_rank_is_paired_by_entity(everything: Members) -> None:
    section = ranks_section(everything)
    rows = {row[0]: row for row in section.headline[0].rows}
    assert list(rows) == ["all", "strong prior", "weak prior", "no prior"]
    weak = rows["weak prior"]
    assert weak[1] == 4
    assert weak[2].value == pytest.approx(np.mean(BEFORE[4:8]))
    assert weak[4] == SignedInterval(weak[4].interval)
    assert weak[4].interval.value == pytest.approx(np.mean(AFTER[4:8]) - np.mean(BEFORE[4:8]))
    assert weak[5].value == pytest.approx(np.mean(AFTER[4:8]) / np.mean(BEFORE[4:8]))
    worst = table(section, "worst-entities").rows
    assert [row[1] for row in worst[:2]] == ["sign 09", "sign 10"]
    assert worst[0][0].uris


def test_the_ratio_of_proportional_ranks_has_no_spread() -> None:
    ranks = np.array([1.0, 5, 20])
    found = ratio_of_means(ranks / 2, ranks, seed=1, resamples=50)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_other_images_and_retrieval_are_the_off_domain_cost(make) -> None:
    world = make.world()
    (make.root / "digits" / "one").mkdir(parents=True)
    shutil.copy(world.path / "images" / "sign 00" / "0.png", make.root / "digits" / "one" / "0.png")
    given = {
        "other": make.ranks("r2", AFTER, make.root / "digits"),
        "own": make.ranks("r1", BEFORE, world.path / "images"),
    }
    # Both sets hold the same entities here, so the first given comes first.
    section = off_domain_section(members_of(given))
    assert [block.caption for block in section.blocks] == [
        f"Rank_e on {world.path / 'images'} (low: strong prior)"
    ]
    assert off_domain_section(members_of({"own": given["own"]})) is None


def test_differences_are_those_counted_by_hand(everything: Members) -> None:
    section = differences_section(everything)
    (row,) = section.headline[0].rows
    title, items, change, gained, lost, p = row
    assert title == "second \N{MINUS SIGN} <b>first</b>"
    assert (items, gained, lost) == (12, 3, 0)
    assert change.interval.value == pytest.approx(0.25)
    assert p.value == pytest.approx(2 * 0.5**3)


def test_evaluations_share_the_benchmarks_that_both_have(everything: Members) -> None:
    (pool,) = group_by_shared_items([m for m in everything.evaluations() if m.evaluation.countable])
    assert list(pool.items) == ["naming"]
    assert [member.label for member in pool.members] == ["<b>first</b>", "second"]


def test_evaluations_are_compared_on_the_items_that_all_answered(make) -> None:
    given = {
        "whole": make.evaluation("e1", {"naming": [True] * 6 + [False] * 6}),
        "part": make.evaluation("e2", {"naming": [True] * 4}),
        "other": make.evaluation("e3", {"else": [True] * 4}),
    }
    members = members_of(given)
    first, second = group_by_shared_items(members.evaluations())
    assert [len(first.all_samples(member)) for member in first.members] == [4, 4]
    assert [member.label for member in second.members] == ["other"]
    assert mean_of_benchmarks(first, first.members[0], members).value == 1.0


def test_the_loss_is_the_logarithm_of_the_perplexity(everything: Members) -> None:
    (row,) = language_section(everything).headline[0].rows
    assert row[0] == "facts"
    assert row[1].value == pytest.approx(math.log(8))
    assert row[1].high == pytest.approx(math.log(16))


def test_examples_show_where_models_differ_first(everything: Members) -> None:
    (gallery,) = examples_section(everything).blocks
    assert isinstance(gallery, Gallery)
    naming = [example for example in gallery.examples if example.benchmark == "naming"]
    assert [example.id for example in naming] == ["naming-6", "naming-7", "naming-8"]
    assert [answer.correct for answer in naming[0].answers] == [False, True]
    assert [answer.parsed for answer in naming[0].answers] == ["other", "sign"]
    assert naming[0].truth == "sign"
    assert naming[0].image.startswith("data:image/png")


def test_smoothing_keeps_constants_and_means(make) -> None:
    assert smoothed(np.full(50, 3.0)) == pytest.approx(np.full(50, 3.0))
    assert smoothed(np.array([7.0])).tolist() == [7.0]
    noise = np.random.default_rng(0).normal(size=2000)
    assert smoothed(noise).std() < 0.2
    llm = make.llm(make.corpus(), [3.0, 2.0])
    curve = read_curve(Member("llm", llm, True))
    assert np.asarray(curve.raw).tolist() == [3.0, 2.0]
    (llm.path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 1.0}) + "\n{\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl:2"):
        read_curve(Member("llm", llm, True))


def test_figures_follow_the_theme_and_keep_their_ids_apart() -> None:
    figure = accuracy_scatter([1.0, 10, 50], {"<a>": [1.0, 0.5, 0]}, {"<a>": "Spearman $x$"})
    svg = figures.to_svg(figure)
    assert svg == figures.to_svg(figure)
    text = figures.inline(svg, 'a "label" & more', "name")
    ElementTree.fromstring(text)
    assert "var(--series-0)" in text
    assert figures.SERIES[0] not in text
    assert figures.INK not in text
    assert 'aria-label="a &#34;label&#34; &amp; more"' in text
    assert all(key.startswith("name-") for key in re.findall(r'\bid="([^"]+)"', text))
    assert "$x$" in text


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def remediated(make, name: str, shares: list[float], **measured: bool) -> Artifact:
    """An encoder as `distill-encoder` leaves it, measured along its line."""
    held_out, elsewhere = measured.get("held_out", True), measured.get("elsewhere", True)
    folder = make.root / name
    folder.mkdir()
    ranks = {
        share: [(1 - share) * a + share * b for a, b in zip(BEFORE, AFTER, strict=True)] for share in shares
    }
    points = [
        {
            "share": share,
            **({"mean_rank": interval(float(np.mean(values)))} if held_out else {}),
            **({"off_domain_mrr": interval(0.6 - 0.2 * share)} if elsewhere else {}),
        }
        for share, values in ranks.items()
    ]
    if held_out:
        columns = {f"mean_rank_at_{share:g}": values for share, values in ranks.items()}
        write_table({"entity": ENTITIES, "images": [1] * 12, **columns}, folder / "held_out_ranks.parquet")
    metrics = {"trade_off": points, "saved_share": shares[-2]}
    return make.seal(name, "encoder", "distill-encoder", metrics=metrics)


def unmeasured(make, name: str) -> Artifact:
    (make.root / name).mkdir()
    return make.seal(name, "encoder", "distill-encoder", metrics={"loss": 1.0})


def test_the_trade_off_is_shown_by_prior_group(make) -> None:
    world = make.world()
    found = members_of({"world": world, "encoder": remediated(make, "d1", [0.0, 0.25, 0.5, 1.0])})
    section = trade_off_section(found)
    assert section is not None
    trade_off = table(section, "trade-off")
    priors = ["strong prior", "weak prior", "no prior"]
    groups = [f"Rank_e, {name}" for name in ("all", *priors)]
    assert list(trade_off.columns) == [
        "share",
        *groups,
        "all \N{DIVISION SIGN} original",
        "off-domain MRR",
        "point",
    ]
    assert [row[0] for row in trade_off.rows] == [0.0, 0.25, 0.5, 1.0]
    assert [row[1].value for row in trade_off.rows] == pytest.approx(
        [np.mean(BEFORE) + share * (np.mean(AFTER) - np.mean(BEFORE)) for share in (0, 0.25, 0.5, 1)]
    )
    assert trade_off.rows[3][4].value == pytest.approx(np.mean(AFTER[8:]))
    assert trade_off.rows[0][5] is None
    assert trade_off.rows[3][5].value == pytest.approx(np.mean(AFTER) / np.mean(BEFORE))
    assert (trade_off.rows[1][6].value, trade_off.rows[1][6].low) == pytest.approx((0.55, 0.45))
    assert [row[7] for row in trade_off.rows] == ["", "", "saved", ""]
    plot = next(block for block in section.blocks if block.kind == "plot")
    left, right = plot.figure.axes
    assert (left.get_yscale(), len(left.containers), len(right.containers)) == ("log", 3, 3)
    drawn = right.containers[2][0]
    assert drawn.get_xdata() == pytest.approx([0.6, 0.55, 0.5, 0.4])
    assert drawn.get_ydata() == pytest.approx([row[4].value for row in trade_off.rows])
    ring = np.asarray(left.collections[-1].get_offsets())
    assert ring[:, 0].tolist() == [0.5] * 3
    assert ring[2, 1] == pytest.approx(trade_off.rows[2][4].value)


def test_the_trade_off_shows_what_was_measured(make) -> None:
    line = [0.0, 0.5, 1.0]
    found = members_of(
        {
            "both": remediated(make, "d1", line),
            "ranks": remediated(make, "d2", line, elsewhere=False),
            "pairs": remediated(make, "d3", line, held_out=False),
            "neither": unmeasured(make, "d4"),
        }
    )
    section = trade_off_section(found)
    assert section is not None
    assert [block.name for block in section.blocks] == [
        "trade-off", "trade-off", "trade-off-2", "trade-off-2", "trade-off-3", "trade-off-3",
    ]  # fmt: skip
    cost = [block for block in section.blocks if block.kind == "plot"][2]
    (axis,) = cost.figure.axes
    assert axis.containers[0][0].get_xdata().tolist() == line
    assert np.asarray(axis.collections[-1].get_offsets())[:, 0].tolist() == [0.5]
    trade_off, ranks, pairs = (block for block in section.blocks if isinstance(block, Table))
    ratio_ = "all \N{DIVISION SIGN} original"
    assert list(trade_off.columns) == ["share", "Rank_e, all", ratio_, "off-domain MRR", "point"]
    assert list(ranks.columns) == ["share", "Rank_e, all", ratio_, "point"]
    assert list(pairs.columns) == ["share", "off-domain MRR", "point"]
    plots_ = [block for block in section.blocks if block.kind == "plot"]
    assert [len(plot.figure.axes) for plot in plots_] == [2, 1, 1]
    assert trade_off_section(members_of({"llm": make.llm(make.corpus())})) is None


def test_the_trade_off_is_found_behind_what_was_given(make, tmp_path: Path) -> None:
    encoder = remediated(make, "d1", [0.0, 0.5, 1.0])
    (make.root / "aligned").mkdir()
    aligned = make.seal("aligned", "mllm", "align", {"encoder": encoder.path})
    folder = tmp_path / "out"
    folder.mkdir()
    sections = build_sections(members_of({"aligned": aligned}))
    assert [section.anchor for section in sections][:2] == ["findings", "trade-off"]
    page.write(sections, "Title", folder)
    assert {"plots/trade-off.svg", "plots/trade-off.png", "tables/trade-off.csv"} <= {
        file.relative_to(folder).as_posix() for file in folder.rglob("*.*")
    }
    heading = (folder / "tables" / "trade-off.csv").read_text().splitlines()[0].split(",")
    assert "off-domain MRR low" in heading


def test_bins_of_the_existence_bench_are_ordered_by_size(make) -> None:
    def entry(names: list[str]) -> dict:
        metrics = {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}
        bins = {name: {"metrics": metrics, "items": 2} for name in names}
        return {"metrics": metrics, "items": 6, "groups": {"sub_task": bins}}

    upstream = ["existence_0-30", "existence_30-60", "existence_60-100"]
    extra = {"bench": entry(upstream[::-1])}
    section = mle_section(members_of({"scores": make.evaluation("e1", {}, extra=extra)}))
    assert section is not None
    assert [row[0] for row in table(section, "mle").rows][:3] == upstream


CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "chrome")
        if (found := shutil.which(name))
    ),
    os.environ.get("PRIORKIT_TEST_CHROMIUM"),
)
"""A Chromium that takes screenshots; the variable names one that is not on the path."""


def drawn_by_chromium(url: str, folder: Path, *more: str) -> None:
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}", *more, url,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def luminance(picture: Path) -> np.ndarray:
    """[height, width], 0 to 255."""
    with Image.open(picture) as image:
        return np.asarray(image.convert("L"), dtype=np.float64)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to take the screenshot with")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1366, 560])
def test_the_page_is_drawn_in_both_themes(
    everything: Members, tmp_path: Path, theme: str, width: int
) -> None:
    page.write(build_sections(everything), "Title", tmp_path)
    picture = tmp_path / "page.png"
    drawn_by_chromium(
        (tmp_path / page.PAGE).as_uri(), tmp_path, f"--window-size={width},900", f"--screenshot={picture}",
        f"--blink-settings=preferredColorScheme={0 if theme == 'dark' else 1}",
    )  # fmt: skip
    pixels = luminance(picture)
    assert (pixels.mean() < 60) == (theme == "dark")
    # Text and tables differ from the background: it is not an empty page.
    assert np.abs(pixels - np.median(pixels)).max() > 120
    # The page's edge stays free: nothing is cut off, what is too wide scrolls within its section.
    edge = pixels[:, -4:]
    assert np.abs(edge - np.median(edge)).max() < 40


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to print with")
def test_what_is_folded_is_printed(everything: Members, tmp_path: Path) -> None:
    page.write(build_sections(everything), "Title", tmp_path)
    html = (tmp_path / page.PAGE).read_text()
    assert "<details>" in html
    lengths: list[int] = []
    for name, text in (
        ("folded", html),
        ("open", html.replace("<details>", "<details open>")),
        ("without", re.sub(r"<details>.*?</details>", "", html, flags=re.DOTALL)),
    ):
        file = tmp_path / f"{name}.html"
        file.write_text(text)
        drawn_by_chromium(file.as_uri(), tmp_path, f"--print-to-pdf={tmp_path / name}.pdf")
        lengths.append((tmp_path / f"{name}.pdf").stat().st_size)
    folded, opened, without = lengths
    assert abs(folded - opened) < 0.02 * opened
    assert folded > without
