"""Presets: every one reads a table of its published schema; the format's errors; the mapping's rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image

from priorkit.core.errors import InputError
from priorkit.core.inputs import resolve
from priorkit.data.columns import image_folders
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.benchmarks.column_mapping import mapped
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource, find_benchmarks
from priorkit.evaluation.benchmarks.items_io import read_items
from priorkit.evaluation.presets.loading import expand, preset, preset_names, read_preset, suite, suite_names
from priorkit.evaluation.tasks.base import ScoringOptions
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.evaluation.tasks.registry import task_named
from tests.support.evaluation_models import picture

IMAGE = {"bytes": picture(1), "path": "1.png"}
MMBENCH = {
    "index": 7, "question": "What?", "hint": "nan", "A": "x", "B": "y", "C": "nan", "D": "nan", "answer": "B",
    "L2-category": "l2", "category": "c", "image": IMAGE,
}  # fmt: skip
CV = {
    "idx": 3,
    "type": "2D",
    "task": "Count",
    "question": "How many?",
    "choices": ["1", "2"],
    "answer": "(B)",
    "image": IMAGE,
}
REF = {
    "question_id": "9",
    "answer": ["the left man", "man"],
    "bbox": [0.0, 10.0, 20.0, 30.0],
    "file_name": "f.jpg",
    "image": IMAGE,
}
AOKVQA = {
    "question_id": "a", "question": "Why?", "choices": ["x", "y"], "correct_choice_idx": 1, "image": IMAGE,
    "direct_answers": "['red', 'blue']",
}  # fmt: skip
POPE = {
    "id": "1",
    "question": "Is there a dog?",
    "answer": "no",
    "image_source": "i",
    "category": "random",
    "image": IMAGE,
}

PUBLISHED: dict[str, dict[str, Any]] = {
    "gqa": {"id": "1", "imageId": "n1", "question": "What?", "answer": "dog", "types": {"structural": "query"}},
    "mme": {"question_id": "a/1.png", "question": "Is it? Please answer yes or no.", "answer": "Yes", "category": "count", "image": IMAGE},
    "mmbench": MMBENCH,
    "mmbench-vanilla": MMBENCH,
    "seed": {"question_id": "1_0", "question": "What?", "choice_a": "x", "choice_b": "y", "choice_c": "z", "choice_d": "w", "answer": "C", "data_type": "image", "question_type_id": 4, "image": [IMAGE]},
    "scienceqa": {"question": "Which?", "hint": "", "choices": ["x", "y"], "answer": 1, "subject": "s", "topic": "t", "image": IMAGE},
    "mmmu": {"id": "v1", "question": "Sum in <image 1>?", "options": "['1', '2']", "answer": "B", "subfield": "f", "question_type": "multiple-choice", **{f"image_{n}": IMAGE if n < 3 else None for n in range(1, 8)}},
    "ai2d": {"question": "What?", "options": ["x", "y"], "answer": "1", "image": IMAGE},
    "mathvista": {"pid": "1", "question": "How long?", "choices": None, "answer": "1.2", "decoded_image": IMAGE, "metadata": {"task": "geometry"}, "question_type": "free_form", "precision": 1.0},
    "textvqa": {"question_id": 1, "question": "Brand?", "answers": ["nokia"] * 10, "image_id": "i", "image": IMAGE},
    "chartqa": {"type": "human_test", "question": "Value?", "answer": "14", "image": IMAGE},
    "ocrbench": {"dataset": "IIIT5K", "question": "Read.", "question_type": "Regular Text Recognition", "answer": ["CENTRE"], "image": IMAGE},
    "realworldqa": {"question": "Which? A. x B. y", "answer": "A", "image": IMAGE},
    "blink": {"idx": "val_Counting_1", "question": "Which?", "prompt": "Which? (A) x (B) y", "sub_task": "Counting", "choices": ["x", "y"], "answer": "(A)", "image_1": IMAGE, "image_2": IMAGE, "image_3": None, "image_4": None},
    "cv-bench-coco": {**CV, "source": "COCO"},
    "cv-bench-ade": {**CV, "source": "ADE20K"},
    "cv-bench-omni3d": {**CV, "source": "Omni3D"},
    "flickr30k": {"filename": "1.jpg", "caption": ["a dog", "the dog"], "image": IMAGE},
    "coco-caption": {"question_id": "1", "answer": ["a dog"], "image": IMAGE},
    "coco-karpathy": {"filename": "1.png", "sentences": ["a dog", "the dog"], "imgid": 3},
    "textcaps": {"question_id": "1", "caption_str": ["a sign"], "image": IMAGE},
    "okvqa": {"question_id": "1", "question": "Why?", "answers": ["red"] * 10, "image": IMAGE},
    "aokvqa": AOKVQA,
    "aokvqa-choice": AOKVQA,
    "iconqa": {"question_id": "1", "question": "How many?", "choices": "1,2,5", "answer": "5", "ques_type": "choose_txt", "query_image": IMAGE},
    "vsr": {"image": "1.png", "caption": "The cat is on the mat.", "label": 1, "relation": "on"},
    "visdial": {"id": "1", "dialog": "Q: hi A: yo", "question": "Colour?", "answer_options": [str(n) for n in range(100)], "gt_index": 40, "image": IMAGE},
    **{f"refcoco-{split}": REF for split in ("val", "testa", "testb")},
    **{f"refcoco-plus-{split}": REF for split in ("val", "testa", "testb")},
    **{f"refcocog-{split}": REF for split in ("val", "test")},
    **{f"pope-{kind}": POPE for kind in ("random", "popular", "adversarial")},
    "mle-bench": {"question": "Which is in the image?", "choices": ["x", "y", "z", "w"], "answer": "z", "sub_task": "existence_0-30", "image": IMAGE},
    "arc-easy": {"id": "1", "question": "Why?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
}  # fmt: skip

EXPECTED: dict[str, dict[str, Any]] = {
    "mmbench": {"choices": ("x", "y"), "answer": 1, "question": "What?"},
    "seed": {"answer": 2, "choices": ("x", "y", "z", "w")},
    "mmmu": {"choices": ("1", "2"), "answer": 1},
    "mathvista": {"choices": (), "answer": "1.2"},
    "ai2d": {"answer": 1},
    "cv-bench-coco": {"answer": 1},
    "iconqa": {"choices": ("1", "2", "5"), "answer": 2},
    "vsr": {"question": "Is it true that: The cat is on the mat.", "answer": "yes"},
    "aokvqa": {"answers": ("red", "blue")},
    "mle-bench": {"answer": 2},
    "realworldqa": {"answer": "a"},
    "blink": {"question": "Which? (A) x (B) y", "choices": ("x", "y"), "answer": 0},
    "arc-easy": {"question": "Question: Why?\nAnswer:", "answer": 1},
    "visdial": {"answer": 40},
    "refcoco-val": {"question": "the left man", "box": (0.0, 0.25, 0.5, 1.0)},
}


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def items_of(given: str, folder: Path | None = None) -> tuple[BenchmarkSource, list[Item]]:
    inputs = {
        f"benchmarks.0{suffix}": resolve(data, f"benchmarks.0{suffix}", ())
        for suffix, data in expand(given).items()
    }
    (source,) = find_benchmarks(inputs, None, {"": folder} if folder else None)
    return source, read_items(source, Rejects(0.0), group_by=(), limit=0, show_images=True)


def layout(root: Path, name: str) -> Path:
    """A folder as the hub has it, with one row."""
    built_in = preset(name)
    row = PUBLISHED[name]
    root.mkdir(exist_ok=True)
    if built_in.data.images is not None:
        table(
            root / built_in.data.images.patterns[0].replace("*", "0"),
            [{"id": row["imageId"], "image": IMAGE}],
        )
    pattern = built_in.data.patterns[0].replace("*", "0")
    if pattern.endswith(".jsonl"):
        import json

        (root / pattern).write_text(json.dumps(row) + "\n")
    else:
        table(root / pattern, [row])
    if built_in.data.image_folder:
        (root / "1.png").write_bytes(picture(1))
    return root


@pytest.mark.parametrize("name", PUBLISHED)
def test_reads_its_published_schema(tmp_path: Path, name: str) -> None:
    source, items = items_of(f"{name}={layout(tmp_path, name)}", tmp_path)
    assert (source.name, source.task.name) == (name, preset(name).task)
    assert len(items) == (2 if preset(name).data.explode else 1)
    found = {key: getattr(items[0], key) for key in EXPECTED.get(name, {})}
    assert found == EXPECTED.get(name, {})
    assert len(items[0].images) == {"mmmu": 2, "blink": 2, "arc-easy": 0}.get(name, 1)


def test_every_vision_preset_runs_and_describes_itself() -> None:
    assert {name for name in preset_names() if preset(name).group != "language"} <= set(PUBLISHED)
    for name in preset_names():
        built_in = preset(name)
        assert built_in.about.endswith(".")
        assert built_in.source.startswith("https://")
        assert built_in.licence
        assert built_in.checked


@pytest.mark.parametrize(("answer", "score"), [("A", 1.0), ("a.", 1.0), (" A ", 1.0), ("B", 0.0), ("", 0.0)])
def test_a_letter_counts_in_any_case_and_dress(tmp_path: Path, answer: str, score: float) -> None:
    source, items = items_of(f"realworldqa={layout(tmp_path, 'realworldqa')}", tmp_path)
    assert source.task.score(items, [ModelAnswer(answer)], ScoringOptions()).scores == [score]


def test_what_was_checked_does_not_make_another_version() -> None:
    built_in = preset("gqa")
    assert built_in.model_copy(update={"checked": "all of it"}).digest() == built_in.digest()
    assert built_in.model_copy(update={"version": 2}).digest() != built_in.digest()


def test_the_hubs_converted_tables_are_a_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, str, list[str]]] = []

    def fetch(name: str, *, revision: str, allow_patterns: list[str], **_: Any) -> str:
        asked.append((name, revision, allow_patterns))
        return str(layout(tmp_path / revision.replace("/", "-"), "flickr30k"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    (given,) = expand("flickr30k").values()
    found = resolve(given, "benchmarks.0.flickr30k", (), "dataset")
    (source,) = find_benchmarks({"benchmarks.0.flickr30k": found}, None, None)
    assert source.files[0].name == "0.parquet"
    files = ["TEST/test/*.parquet"]
    assert asked == [("nlphuji/flickr_1k_test_image_text_retrieval", "refs/convert/parquet", files)]


def test_suites_are_those_of_the_papers() -> None:
    groups = suite("lsbs-vision").groups
    assert [len(names) for names in groups.values()] == [4, 4, 3, 5]
    assert len(suite("lsbs-vision").members) == 16
    assert len(suite("lion-image").members) == 9
    assert len(suite("rec").members) == 8
    assert len(suite("pope").members) == 3
    assert {"lsbs-vision", "lion-image", "rec", "pope"} <= set(suite_names())


def test_rows_that_do_not_count_are_left_out(tmp_path: Path) -> None:
    rows = [
        {**PUBLISHED["seed"], "question_id": str(n), "data_type": kind}
        for n, kind in enumerate(["image", "video"])
    ]
    _, items = items_of(f"seed={table(tmp_path / 'seed.parquet', rows)}")
    assert [item.id for item in items] == ["0"]


def test_missing_columns_are_named(tmp_path: Path) -> None:
    row = {key: value for key, value in POPE.items() if key != "answer"}
    with pytest.raises(InputError, match=r"reads answer; the columns are id, question"):
        items_of(f"pope-random={table(tmp_path / 'p.parquet', [row])}")


def test_a_label_that_is_no_choice_is_a_broken_row(tmp_path: Path) -> None:
    row = {**PUBLISHED["iconqa"], "answer": "9"}
    with pytest.raises(InputError, match="'9' is 0 times among"):
        items_of(f"iconqa={table(tmp_path / 'i.parquet', [row])}")


def test_an_image_missing_from_a_separate_table_is_reported(tmp_path: Path) -> None:
    layout(tmp_path, "gqa")
    data = preset("gqa").data
    table(tmp_path / data.patterns[0].replace("*", "0"), [{**PUBLISHED["gqa"], "imageId": "other"}])
    with pytest.raises(InputError, match="no image with id 'other'"):
        items_of(f"gqa={tmp_path}")


def test_image_files_need_their_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name image files of COCO"):
        items_of(f"vsr={layout(tmp_path, 'vsr')}")


def test_every_benchmark_may_have_its_image_folder(tmp_path: Path) -> None:
    """VSR and Karpathy's COCO name files of different folders, and so does a user's table."""
    rows = tmp_path / "own.jsonl"
    rows.write_text('{"question": "?", "answer": "a", "image": "1.png"}\n')
    given = [
        f"vsr={layout(tmp_path / 'v', 'vsr')}",
        f"coco-karpathy={layout(tmp_path / 'k', 'coco-karpathy')}",
        str(rows),
    ]
    inputs = {
        f"benchmarks.{place}{suffix}": resolve(own, f"benchmarks.{place}{suffix}", ())
        for place, word in enumerate(given)
        for suffix, own in expand(word, given).items()
    }
    words = [str(tmp_path / "v"), f"coco-karpathy={tmp_path / 'k'}"]
    found = find_benchmarks(inputs, None, image_folders(words))
    assert [source.image_folder for source in found] == [tmp_path / "v", tmp_path / "k", tmp_path / "v"]
    for source in found:
        (item,) = read_items(source, Rejects(0.0), group_by=(), limit=0, show_images=True)
        assert item.image is not None
        assert item.image.path == source.image_folder / "1.png"
    with pytest.raises(InputError, match="no benchmark 'vsrr'"):
        find_benchmarks(inputs, None, image_folders([str(tmp_path / "v"), f"vsrr={tmp_path / 'k'}"]))
    with pytest.raises(InputError, match="no such folder"):
        image_folders([f"vsr={tmp_path / 'none'}"])
    with pytest.raises(InputError, match="two folders for 'vsr'"):
        image_folders([f"vsr={tmp_path / 'k'}", f"vsr={tmp_path / 'v'}"])


def test_a_suite_leaves_its_members_to_whoever_names_them(tmp_path: Path) -> None:
    given = ["pope", "lion-image", f"visdial={layout(tmp_path, 'visdial')}", "lsbs-vision", "vsr"]
    found = [suffix for word in given for suffix in expand(word, given)]
    assert len(found) == len(set(found))
    members = {*suite("pope").members, *suite("lion-image").members, *suite("lsbs-vision").members}
    assert set(found) == {f".{name}" for name in members}
    assert ".visdial" not in expand("lion-image", given)
    assert ".gqa" in expand("lion-image", given)
    assert ".gqa" not in expand("lsbs-vision", given)
    with pytest.raises(InputError, match="visdial=FILE"):
        expand("lion-image")


OWN = """
about = "Mine."
task = "choice"
version = 1
[data]
path = "rows.parquet"
[columns]
question = "q"
choices = { column = ["a", "b"], apply = ["lower-first"] }
answer = { column = "right", map = { first = 0, second = 1 } }
topic = "t"
"""


def test_a_user_benchmark_is_one_file(tmp_path: Path) -> None:
    table(tmp_path / "rows.parquet", [{"q": "?", "a": "Red", "b": "Blue", "right": "second", "t": "colour"}])
    (tmp_path / "mine.toml").write_text(OWN)
    source, (item,) = items_of(str(tmp_path / "mine.toml"))
    assert (source.name, item.choices, item.answer) == ("mine", ("red", "blue"), 1)
    assert item.groups == {"topic": "colour"}
    assert source.digest().endswith(read_preset(tmp_path / "mine.toml").digest())


def test_all_mistakes_of_a_file_are_reported_together(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(OWN.replace("task =", "taks =").replace('question = "q"', 'question = { as = "letter" }'))
    with pytest.raises(InputError) as caught:
        read_preset(file)
    text = str(caught.value)
    assert "unknown key 'taks'" in text
    assert "missing key 'task'" in text
    assert "exactly one of column, template, value" in text
    file.write_text("about = ")
    with pytest.raises(InputError, match="not valid TOML"):
        read_preset(file)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('[prompt]\nchat = "{question} {passage}"', "no placeholder {passage}"),
        ('[prompt]\nplain = "{question} {}"', "no placeholder {}"),
        ('[prompt]\nchat = "{question"', "brace of the text's own is written twice"),
        ('[scoring]\nmetric = "acuracy"', "no metric 'acuracy' of the task type 'choice'"),
        ('[scoring]\nmetric = "cider"', "no metric 'cider'"),
        ('[scoring]\ncluster = "tpoic"', "cluster: no column 'tpoic'"),
        ('[columns.hint]\ntemplate = "{q:lowre}"', "no clean-up 'lowre'"),
        ('[columns.hint]\ntemplate = "{}"', "empty braces"),
    ],
)
def test_unknown_names_in_a_file_are_reported(tmp_path: Path, more: str, message: str) -> None:
    table(tmp_path / "rows.parquet", [{"q": "?", "a": "Red", "b": "Blue", "right": "second", "t": "colour"}])
    (tmp_path / "mine.toml").write_text(f"{OWN}{more}\n")
    with pytest.raises(InputError, match=re.escape(message)):
        items_of(str(tmp_path / "mine.toml"))


def test_a_files_wording_is_kept(tmp_path: Path) -> None:
    """Doubled braces are text, any column can be a cluster, and a metric may be one of several."""
    table(tmp_path / "rows.parquet", [{"q": "?", "a": "Red", "b": "Blue", "right": "second", "t": "colour"}])
    more = '[prompt]\nchat = "{question} {{a}}\\n{options}"\n[scoring]\nmetric = "macro_accuracy"\ncluster = "question"\n'
    (tmp_path / "mine.toml").write_text(OWN + more)
    source, (item,) = items_of(str(tmp_path / "mine.toml"))
    assert source.preset is not None
    assert source.preset.prompt.chat.format(question="a", options="b") == "a {a}\nb"
    assert item.groups["question"] == "?"


def test_a_clean_up_of_what_is_no_text_is_a_broken_row(tmp_path: Path) -> None:
    rows = [{"q": "?", "a": 1, "b": 2, "right": "second", "t": "colour"}]
    table(tmp_path / "rows.parquet", rows)
    (tmp_path / "mine.toml").write_text(OWN)
    with pytest.raises(InputError, match="'lower-first' cleans up text, got 1"):
        items_of(str(tmp_path / "mine.toml"))


def test_every_presets_metric_and_cluster_are_known(tmp_path: Path) -> None:
    for name in preset_names():
        built_in = preset(name)
        assert built_in.scoring.metric in task_named(built_in.task, name).metrics
        assert not built_in.scoring.cluster or built_in.scoring.cluster in built_in.columns


def test_a_name_that_is_not_known_gets_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        expand("pope-advesarial")
    assert "pope-adversarial" in f"{caught.value} {caught.value.problems[0].hint}"


def test_a_known_name_is_the_benchmark_even_if_a_path_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results may well be called like the suite; the same command must mean the same again."""
    monkeypatch.chdir(tmp_path)
    for name in ("pope", "gqa"):
        (tmp_path / name).mkdir()
    assert set(expand("pope")) == {f".{name}" for name in suite("pope").members}
    assert expand("gqa") == {".gqa": preset("gqa").location()}
    assert expand("./gqa") == {"": "./gqa"}


def test_pixels_are_those_of_the_upright_image(tmp_path: Path) -> None:
    lying = Image.Exif()
    lying[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "1.jpg", exif=lying)
    row = {
        **REF,
        "bbox": [0.0, 10.0, 10.0, 30.0],
        "image": {"bytes": (tmp_path / "1.jpg").read_bytes(), "path": "1.jpg"},
    }
    _, items = items_of(f"refcoco-val={table(tmp_path / 'r.parquet', [row])}")
    assert items[0].box == (0.0, 0.25, 0.5, 1.0)
    assert items[0].image_size == (20, 40)


def test_cleanups_and_templates() -> None:
    arc = read_preset(Path(__file__).parents[4] / "priorkit/evaluation/presets/arc-easy.toml")
    columns = {
        "question": {"template": "{a.b} {c}", "apply": ["hellaswag", "no-final-stop"]},
        "text": {"column": "w", "apply": ["wikitext"]},
    }
    changed = arc.model_validate({**arc.model_dump(by_alias=True), "columns": columns})
    row = {"a": {"b": "Do [step] it"}, "c": "now [title] Go.", "w": "a @-@ b , c ( d ) 's"}
    (found,) = mapped(changed, row, Path())
    assert found == {"question": "Do it now. Go", "text": "a-b, c (d)'s"}


def test_a_suite_asks_and_parses_as_its_paper_unless_told_otherwise() -> None:
    """Members of LSBS's vision suite are answered in writing and read by its rule; alone they are not."""
    from priorkit.evaluation.settings import EvaluateSettings

    def rule(**given: object) -> tuple[str, str]:
        settings = EvaluateSettings(model="m", out="x", **given)  # pyright: ignore[reportArgumentType]
        scoring = preset("mmmu").scoring
        return settings.mode_of("mmmu", "mllm"), settings.scoring_options(scoring, "mmmu").parser

    assert rule(benchmarks=("lsbs-vision",)) == ("generation", "lsbs")
    assert rule(benchmarks=("mmmu",)) == ("auto", preset("mmmu").scoring.parser)
    assert rule(benchmarks=("lsbs-vision",), by="likelihood", parser="careful") == ("likelihood", "careful")
    encoder = EvaluateSettings(model="m", out="x", benchmarks=("lsbs-vision",))
    assert encoder.mode_of("mmmu", "encoder") == "auto"
