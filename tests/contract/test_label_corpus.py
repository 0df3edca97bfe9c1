"""``priorkit label-corpus`` as its users meet it: labelled text that other steps read, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from priorkit.core import artifact
from priorkit.data.text.concepts import COMBINATIONS, CONCEPTS, LABELS
from priorkit.labelling.language_models.likelihood import LikelihoodLabeller

PROMPT = """
[chat]
user = "Text: {text}\\nIs it {label}, {definition}?"
yes = ["Yes", "yes"]
no = ["No", "no"]
[plain]
text = "{text}\\n{label}?"
yes = [" yes"]
no = [" no"]
""" + "".join(f'[labels.{name}]\nlabel = "{name}"\ndefinition = "{name[:6]}"\n' for name in CONCEPTS)

CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def prompt(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("prompt") / "prompt.toml"
    path.write_text(PROMPT)
    return path


def sources(artifacts) -> list[str]:
    return [f"{name}={artifacts.world / 'text' / f'{name}.jsonl'}" for name in ("facts", "code")]


@pytest.fixture(scope="module")
def asked(artifacts, prompt) -> tuple:
    """Two sources labelled by a random model, calibrated so that it favours neither answer."""
    return (
        "label-corpus", *sources(artifacts), "--labeller", artifacts.llm, "--prompt", prompt, "--segment-tokens", 48,
        "--calibrate", "--form", "plain", "--max-documents", 60, *CPU,
    )  # fmt: skip


@pytest.fixture(scope="module")
def by_model(cli, asked, tmp_path_factory):
    found = cli(*asked, "--out", tmp_path_factory.mktemp("labelled") / "by-model")
    assert found.code == 0, found.err
    return found


@pytest.fixture(scope="module")
def distilled(cli, asked, tmp_path_factory):
    out = tmp_path_factory.mktemp("labelled") / "distilled"
    found = cli(*asked, "--distil-labeller", "--sample", 60, "--held-out", 0.4, "--out", out)
    assert found.code == 0, found.err
    return found


def documents(path: Path, count: int) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()[:count]]


def test_the_text_is_unchanged_and_has_its_labels(by_model, artifacts) -> None:
    made = artifact.open_artifact(by_model.path)
    assert made.kind == "text"
    for name in ("facts", "code"):
        rows = pq.read_table(by_model.path / "text" / f"{name}.parquet").to_pylist()
        given = documents(artifacts.world / "text" / f"{name}.jsonl", 60)
        joined: dict[str, str] = {}
        for row in rows:
            assert row["segment"] == sum(
                1 for r in rows[: rows.index(row)] if r["document"] == row["document"]
            )
            joined[row["document"]] = joined.get(row["document"], "") + row["text"]
        assert joined == {row["id"]: row["text"] for row in given}
        assert {row["source"] for row in rows} == {name}
        assert {row["labeller"] for row in rows} == {"llm"}
        for row in rows:
            expected = {label for label in CONCEPTS if row["scores"][label] >= 0.5}
            expected |= {label for label, parts in COMBINATIONS.items() if expected & set(parts)}
            assert row["labels"] == [label for label in LABELS if label in expected]
    assert 0 < made.manifest.metrics["shares"]["facts"]["visual"] < 1, "labels that say nothing"


def test_the_table_holds_shares_of_tokens_and_of_segments(by_model) -> None:
    table = {row["source"]: row for row in pq.read_table(by_model.path / "table.parquet").to_pylist()}
    for name, found in table.items():
        rows = pq.read_table(by_model.path / "text" / f"{name}.parquet").to_pylist()
        tokens = np.array([row["tokens"] for row in rows])
        assert (found["segments"], found["tokens"]) == (len(rows), tokens.sum())
        assert found["documents"] == len({row["document"] for row in rows})
        for label in LABELS:
            labelled = np.array([label in row["labels"] for row in rows])
            assert found[label] == pytest.approx(tokens[labelled].sum() / tokens.sum())
            assert found[f"{label}_segments"] == pytest.approx(labelled.mean())
        empty = np.array([not row["labels"] for row in rows])
        assert found["none"] == pytest.approx(tokens[empty].sum() / tokens.sum())
    assert (by_model.path / "proportions.png").read_bytes().startswith(b"\x89PNG")


def test_mix_tokenizer_and_evaluate_take_it_as_a_source(cli, artifacts, by_model, tmp_path: Path) -> None:
    mixed = cli(
        "mix", f"a={by_model.path}", f"b={by_model.path / 'text' / 'code.parquet'}", "--tokenizer", artifacts.tokenizer,
        "--context-length", 32, "--tokens", "2k", "--weight", "a=1,b=1", "--out", tmp_path / "corpus",
    )  # fmt: skip
    assert mixed.code == 0, mixed.err
    trained = cli("tokenizer", f"a={by_model.path}", "--vocab-size", 300, "--out", tmp_path / "tokenizer")
    assert trained.code == 0, trained.err
    again = cli(
        "label-corpus", f"a={by_model.path}", "--labeller", artifacts.llm, "--max-documents", 4, *CPU,
        "--out", tmp_path / "again",
    )  # fmt: skip
    assert again.code == 0, again.err
    scored = cli(
        "evaluate", artifacts.llm, by_model.path, "--task", "perplexity", "--limit", 5, "--resamples", 100, *CPU,
        "--out", tmp_path / "scores",
    )  # fmt: skip
    assert scored.code == 0, scored.err
    assert set(json.loads((tmp_path / "scores" / "results.json").read_text())["benchmarks"]) == {
        "facts",
        "code",
    }


def test_the_same_inputs_give_the_same_bytes(cli, asked, by_model, tmp_path: Path) -> None:
    again = cli(*asked, "--out", tmp_path / "again")
    assert artifact.open_artifact(again.path).digest == artifact.open_artifact(by_model.path).digest


@pytest.mark.parametrize("torn", [0, 13])
def test_an_interrupted_run_resumes(cli, asked, by_model, tmp_path: Path, monkeypatch, torn: int) -> None:
    out = tmp_path / "out"
    score, calls = LikelihoodLabeller.score, []

    def counted(self, texts, images=None):
        calls.append(len(texts))
        if len(calls) == 2 and len(calls) == interrupt:
            raise KeyboardInterrupt
        return score(self, texts, images)

    monkeypatch.setattr(LikelihoodLabeller, "score", counted)
    interrupt = 2
    stopped = cli(*asked, "--out", out)
    assert stopped.code == 130
    scores = out.with_name("out.partial") / "state" / "scores.f32"
    with scores.open("ab") as stream:  # as a process killed while writing leaves it
        stream.write(b"\0" * torn)
    calls.clear()
    interrupt = 0
    done = cli(*asked, "--out", out)
    assert done.code == 0, done.err
    made = artifact.open_artifact(out)
    assert sum(calls) == made.manifest.metrics["segments"] - 64, "what was scored is not scored again"
    reference = artifact.open_artifact(by_model.path)
    assert made.digest == reference.digest
    assert made.manifest.metrics == reference.manifest.metrics


def test_a_distilled_labeller_labels_the_rest_and_can_be_used_again(
    cli, artifacts, by_model, distilled, asked, tmp_path: Path
) -> None:
    out = distilled.path
    assert "agreement with the model on 24 held-out segments" in distilled.err
    rows = [
        row for n in ("facts", "code") for row in pq.read_table(out / "text" / f"{n}.parquet").to_pylist()
    ]
    assert [row["labeller"] for row in rows].count("llm") == 60
    whole = [
        row
        for n in ("facts", "code")
        for row in pq.read_table(by_model.path / "text" / f"{n}.parquet").to_pylist()
    ]
    for one, other in zip(rows, whole, strict=True):
        if one["labeller"] == "llm":
            assert one["labels"] == other["labels"]
    agreement = pq.read_table(out / "agreement.parquet").to_pylist()
    assert [row["label"] for row in agreement] == list(LABELS)
    assert {row["items"] for row in agreement} == {24}
    assert set(agreement[0]) == {"label", "items", "given", "predicted", "precision", "recall", "f1", "kappa"}
    for labeller in (out, out / "labeller"):
        used = cli(
            "label-corpus", *sources(artifacts), "--labeller", labeller, "--segment-tokens", 48,
            "--max-documents", 60, "--out", tmp_path / labeller.name,
        )  # fmt: skip
        assert used.code == 0, used.err
        again = [
            row
            for n in ("facts", "code")
            for row in pq.read_table(used.path / "text" / f"{n}.parquet").to_pylist()
        ]
        for one, other in zip(again, rows, strict=True):
            assert one["text"] == other["text"]
            if other["labeller"] == "linear":
                assert (one["scores"], one["labels"]) == (other["scores"], other["labels"])


def test_thresholds_decide(cli, asked, tmp_path: Path) -> None:
    found = cli(*asked, "--threshold", "all=1", "--threshold", "math_reasoning=0", "--out", tmp_path / "t")
    assert found.code == 0, found.err
    shares = artifact.open_artifact(found.path).manifest.metrics["shares"]["code"]
    assert (shares["math_reasoning"], shares["reasoning"], shares["visual"], shares["none"]) == (1, 1, 0, 0)


def test_one_question_whose_answer_is_parsed(cli, artifacts, tmp_path: Path, monkeypatch) -> None:
    """Labels are those that the answer names; what cannot be parsed is counted; both ways are compared."""
    from priorkit.labelling.language_models import generation

    def answers(self: generation.GenerationLabeller, rows: list, inputs: list) -> list[str]:
        texts = [self._model.tokenizer.decode(row) for row in rows]
        return ["Code reasoning" if "return" in t else "hm" if "def " in t else "None" for t in texts]

    monkeypatch.setattr(generation.GenerationLabeller, "_answers", answers)
    prompt = tmp_path / "prompt.toml"
    shipped = Path(generation.__file__).with_name("concepts-generation.toml").read_text()
    prompt.write_text(shipped.replace("{labels}", ""))
    words = (
        "label-corpus", *sources(artifacts), "--labeller", artifacts.llm, "--by", "generation", "--prompt", prompt,
        "--form", "plain", "--segment-tokens", 48, "--max-documents", 40, *CPU,
    )  # fmt: skip
    score = lambda self, texts, images=None: _all_code(texts)  # noqa: E731
    monkeypatch.setattr(LikelihoodLabeller, "score", score)
    found = cli(*words, "--compare", 12, "--out", tmp_path / "out")
    assert found.code == 0, found.err
    metrics = artifact.open_artifact(found.path).manifest.metrics
    rows = [
        row for n in ("facts", "code") for row in pq.read_table(found.path / "text" / f"{n}.parquet").to_pylist()
    ]  # fmt: skip
    for row in rows:
        assert row["labels"] == (["code_reasoning", "reasoning"] if "return" in row["text"] else [])
        assert row["scores"]["code_reasoning"] == float("return" in row["text"])
    unparsed = sum("return" not in row["text"] and "def " in row["text"] for row in rows)
    assert metrics["unparsed"] == unparsed
    assert (f"the answers about {unparsed:,} of" in found.err) == bool(unparsed)
    compared = pq.read_table(found.path / "agreement-of-ways.parquet").to_pylist()
    by_label = {row["label"]: row for row in compared}
    assert {row["items"] for row in compared} == {12}
    assert by_label["code_reasoning"]["predicted"] == 12
    assert by_label["code_reasoning"]["given"] <= 12
    assert metrics["agreement_of_ways"]["code_reasoning"]["predicted"] == 12


def _all_code(texts: list[str]):
    from priorkit.labelling.base import SegmentScores

    scores = np.zeros((len(texts), len(CONCEPTS)), dtype=np.float32)
    scores[:, CONCEPTS.index("code_reasoning")] = 0.9
    return SegmentScores(scores, *np.zeros((2, len(texts)), dtype=np.bool_))


def test_a_multimodal_labeller_sees_the_images(cli, artifacts, tmp_path: Path, monkeypatch) -> None:
    """Each conversation is labelled with its own image, text-only ones without; broken images are rejected."""
    from priorkit.labelling.language_models import generation

    seen: dict[str, str] = {}

    def answers(self: generation.GenerationLabeller, rows: list, inputs: list) -> list[str]:
        for row, given in zip(rows, inputs, strict=True):
            text = self._model.tokenizer.decode(row)
            number = text.split("number ")[1].split()[0]
            seen[number] = ",".join(image.name for image in given.images)
        return ["Perception" if given.images else "others" for given in inputs]

    monkeypatch.setattr(generation.GenerationLabeller, "_answers", answers)
    from tests.support.evaluation_models import picture

    rows = []
    for number in range(12):
        turns = [{"from": "human", "value": f"what is number {number} ?"}, {"from": "gpt", "value": "it ."}]
        row = {"id": f"t{number}", "conversations": turns}
        if number % 3:
            (tmp_path / f"{number}.png").write_bytes(picture(number) if number != 4 else b"broken")
            turns[0]["value"] = "<image>\n" + turns[0]["value"]
            row["image"] = f"{number}.png"
        rows.append(row)
    source = tmp_path / "mix.json"
    source.write_text(json.dumps(rows))
    prompt = tmp_path / "prompt.toml"
    prompt.write_text(
        '[chat]\nuser = "{text}"\nnone = ["others"]\n[plain]\ntext = "{text}"\nnone = ["others"]\n'
        + "".join(f'[labels.{n}]\nlabel = "{n}"\ndefinition = ""\n' for n in ("perception", "reasoning"))
    )
    found = cli(
        "label-corpus", f"mix={source}", "--labels", "abilities", "--labeller", artifacts.mllm, "--by", "generation",
        "--prompt", prompt, "--form", "plain", "--reject-limit", 0.2, *CPU, "--out", tmp_path / "out",
    )  # fmt: skip
    assert found.code == 0, found.err
    assert set(seen) == {str(number) for number in range(12)} - {"4"}
    for number, image in seen.items():
        assert image == (f"{number}.png" if int(number) % 3 else ""), (number, image)
        assert bool(image) == bool(int(number) % 3)
    kept = {
        row["id"]: row["ability"]
        for file in (found.path / "conversations" / "mix").rglob("*.parquet")
        for row in pq.read_table(file).to_pylist()
    }
    assert kept == {f"t{n}": "perception" if n % 3 else "none" for n in range(12) if n != 4}
    assert artifact.open_artifact(found.path).manifest.metrics["rejected"] == 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--by", "generation", "--calibrate"), "--calibrate: no effect with --by generation"),
        (("--by", "generation", "--threshold", "all=0.2"), "--threshold: no effect with --by generation"),
        (("--max-new-tokens", 9), "--max-new-tokens: no effect with --by likelihood"),
    ],
)
def test_options_of_the_other_way(cli, artifacts, tmp_path: Path, extra: tuple, message: str) -> None:
    found = cli(
        "label-corpus", *sources(artifacts), "--labeller", artifacts.llm, *extra, "--out", tmp_path / "x"
    )
    assert found.code == 2, found.err
    assert message in found.err


def test_refusals(cli, artifacts, distilled, tmp_path: Path) -> None:
    base = ("label-corpus", *sources(artifacts), "--out", tmp_path / "out")

    def refused(code: int, *parts: str, **_: object) -> None:
        assert found.code == code, found.err
        for part in parts:
            assert part in found.err
        assert "Traceback" not in found.err

    found = cli(
        *base, "--labeller", artifacts.llm, "--threshold", "math=0.5,visual=0.1", "--threshold", "all=2"
    )
    refused(2, "unknown label 'math'", "set their thresholds instead", "between 0 and 1, got 2")
    found = cli(*base, "--labeller", artifacts.mllm)
    refused(3, "--labeller", "expected a language model, got 'llava'")
    found = cli(*base, "--labeller", artifacts.world)
    refused(3, "world")
    found = cli(*base, "--labeller", distilled.path, "--calibrate", "--distil-labeller")
    refused(2, "--calibrate: no effect with a linear labeller", "--distil-labeller: no effect")
    bad = tmp_path / "bad.toml"
    bad.write_text(PROMPT.replace("[labels.math_reasoning]", "[labels.math]"))
    found = cli(*base, "--labeller", artifacts.llm, "--prompt", bad, "--check")
    refused(3, "unknown key 'math'", "'math_reasoning' is missing")
    long = tmp_path / "long.toml"
    long.write_text(PROMPT.replace("{label}?", "{label}? " + "z " * 700))
    found = cli(
        *base,
        "--labeller",
        artifacts.llm,
        "--prompt",
        long,
        "--form",
        "plain",
        *CPU,
        "--out",
        tmp_path / "long",
    )
    refused(3, "the model takes 512 with the text")
    found = cli(
        "label-corpus", f"a/b={artifacts.facts}", "--labeller", artifacts.llm, "--out", tmp_path / "name"
    )
    refused(2, "'a/b' cannot name a file")
    found = cli(
        "label-corpus",
        f"a={tmp_path / 'nothing.jsonl'}",
        "--labeller",
        artifacts.llm,
        "--out",
        tmp_path / "x",
    )
    refused(3, "no such file")


def test_check_prints_the_plan(cli, asked, tmp_path: Path) -> None:
    found = cli(*asked, "--distil-labeller", "--out", tmp_path / "out", "--check")
    assert found.code == 0
    assert "plain prompt for 2,000 segments" in found.err
    assert not (tmp_path / "out").exists()


ABILITIES = """
[chat]
user = "{text}\\n{label}, {definition}?"
yes = ["Yes"]
no = ["No"]
[plain]
text = "{text}\\n{label}?"
yes = [" yes"]
no = [" no"]
[labels.perception]
label = "seen"
definition = "what can be seen"
[labels.reasoning]
label = "worked out"
definition = "what takes steps"
"""


def conversations(folder: Path, count: int) -> Path:
    """LLaVA rows with an image each or none, and one whose image is missing."""
    from PIL import Image

    Image.new("RGB", (8, 8), (200, 30, 60)).save(folder / "a.png")
    rows: list[dict] = []
    for number in range(count):
        sight = number % 3 > 0
        question = f"what {'colour is it' if number % 2 else 'is the sum of 7 and'} {number}"
        turns = [
            {"from": "human", "value": ("<image>\n" if sight else "") + question},
            {"from": "gpt", "value": f"it is {number}"},
        ]
        rows.append({"id": number if sight else f"t{number}", "conversations": turns, "ability": "before"})
        rows[-1] |= {"image": "a.png"} if sight else {}
    rows[1] = {**rows[1], "image": "gone.png"}
    path = folder / "mix.json"
    path.write_text(json.dumps(rows))
    return path


def test_conversations_come_back_by_ability_ready_to_tune(cli, artifacts, tmp_path: Path) -> None:
    from priorkit.data.io.rejects import Rejects
    from tests.support.conversations import all_conversations

    prompt = tmp_path / "prompt.toml"
    prompt.write_text(ABILITIES)
    source = conversations(tmp_path, 30)
    words = (
        "label-corpus", f"mix={source}", f"world={artifacts.instructions}", "--labels", "abilities", "--labeller", artifacts.llm,
        "--prompt", prompt, "--calibrate", "--form", "plain", "--reject-limit", 0.1, *CPU,
    )  # fmt: skip
    found = cli(*words, "--out", tmp_path / "out")
    assert found.code == 0, found.err
    made = artifact.open_artifact(found.path)
    assert (made.kind, made.manifest.metrics["rejected"]) == ("instructions", 1)
    folder = found.path / "conversations" / "mix"
    rows = [
        (file.parent.name, row)
        for file in sorted(folder.rglob("*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]
    assert all(kind == row["ability"] for kind, row in rows)
    assert {kind for kind, _ in rows} <= {"perception", "reasoning", "none"}
    given = json.loads(source.read_text())
    by_id = {row["id"]: row for _, row in rows}
    assert set(by_id) == {str(row["id"]) for row in given} - {"1"}
    for row in given[:1] + given[2:]:
        back = by_id[str(row["id"])]
        assert back["conversations"] == row["conversations"]
        assert (back["image"] is None) == ("image" not in row)
    share = {row["source"]: row for row in pq.read_table(found.path / "table.parquet").to_pylist()}["mix"]
    for kind in ("perception", "reasoning", "none"):
        assert share[f"{kind}_segments"] == pytest.approx(sum(ability == kind for ability, _ in rows) / 29)
    world = all_conversations(found.path / "conversations" / "world", Rejects(0.0))
    before = all_conversations(artifacts.instructions, Rejects(0.0))
    assert {ability.turns for ability in world} == {ability.turns for ability in before}
    assert len(world) == len(before)
    kinds = sorted(item.name for item in (found.path / "conversations" / "world").iterdir())
    tuned = cli(
        "tune", artifacts.mllm, *(f"{kind}={found.path}/conversations/world/{kind}" for kind in kinds), "--steps", 1,
        "--batch-size", 2, "--warmup-steps", 0, *CPU, "--out", tmp_path / "tuned",
    )  # fmt: skip
    assert tuned.code == 0, tuned.err
    distilled = cli(
        *words, "--distil-labeller", "--sample", 40, "--held-out", 0.3, "--out", tmp_path / "distilled"
    )
    assert distilled.code == 0, distilled.err
    again = cli(
        "label-corpus", f"mix={source}", "--labels", "abilities", "--labeller", distilled.path, "--reject-limit", 0.1,
        "--out", tmp_path / "linear",
    )  # fmt: skip
    assert again.code == 0, again.err
    wrong = cli(
        "label-corpus", *sources(artifacts), "--labeller", distilled.path, "--out", tmp_path / "wrong"
    )
    assert wrong.code == 3
    assert "expected the labels visual_concept" in wrong.err


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        (("--segment-tokens", 48), 2, "--segment-tokens: no effect on conversations"),
        (("--threshold", "visual=0.5"), 2, "unknown label 'visual'"),
        (("--prompt", "PROMPT"), 3, "the key 'perception' is missing"),
    ],
)
def test_options_that_do_not_apply_to_conversations(
    cli, artifacts, prompt, tmp_path: Path, extra: tuple, code: int, message: str
) -> None:
    extra = tuple(prompt if word == "PROMPT" else word for word in extra)
    words = (
        "label-corpus",
        f"a={artifacts.instructions}",
        "--labels",
        "abilities",
        "--labeller",
        artifacts.llm,
    )
    found = cli(*words, *extra, *CPU, "--out", tmp_path / "x")
    assert found.code == code, found.err
    assert message in found.err
    text = cli(
        "label-corpus",
        *sources(artifacts),
        "--labels",
        "abilities",
        "--labeller",
        artifacts.llm,
        "--out",
        tmp_path / "x",
    )
    assert text.code == 3
    assert "neither 'conversations'" in text.err
    assert "the columns are id, text" in text.err


def test_each_conversation_has_the_ability_that_the_model_gives(
    cli, artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that knows the answer: colors are perception, sums reasoning, multiples of five neither."""
    from priorkit.labelling.base import SegmentScores

    def score(self: LikelihoodLabeller, texts: list[str], images: object = None) -> SegmentScores:
        assert all(text.startswith("Question: what") and "<image>" not in text for text in texts)
        found = [
            (0.1, 0.2) if int(t.split()[-1]) % 5 == 0 else (0.9, 0.6) if "colour" in t else (0.6, 0.9)
            for t in texts
        ]
        return SegmentScores(np.array(found, dtype=np.float32), *np.zeros((2, len(texts)), dtype=np.bool_))

    monkeypatch.setattr(LikelihoodLabeller, "score", score)
    source = conversations(tmp_path, 30)
    found = cli(
        "label-corpus", f"mix={source}", "--labels", "abilities", "--labeller", artifacts.llm, "--reject-limit", 0.1, *CPU,
        "--form", "plain", "--out", tmp_path / "out",
    )  # fmt: skip
    assert found.code == 0, found.err
    seen: set[int] = set()
    for file in sorted((found.path / "conversations" / "mix").rglob("*.parquet")):
        for row in pq.read_table(file).to_pylist():
            number = int(row["id"].removeprefix("t"))
            expected = "none" if number % 5 == 0 else "perception" if number % 2 else "reasoning"
            assert (row["ability"], file.parent.name) == (expected, expected)
            seen.add(number)
    assert seen == set(range(30)) - {1}


def test_the_most_likely_of_two_abilities_is_kept() -> None:
    from priorkit.data.conversations.labelled_conversations import Abilities, most_likely

    scores = np.array([[0.6, 0.9], [0.9, 0.6], [0.7, 0.7], [0.9, 0.6], [0.1, 0.2]], dtype=np.float32)
    present = np.array([[1, 1], [1, 1], [1, 1], [0, 1], [0, 0]], dtype=bool)
    kept = most_likely(scores, present)
    assert kept.tolist() == [[False, True], [True, False], [True, False], [False, True], [False, False]]
    found = Abilities(["0:1", "0:3", "1:1", "1:2", "1:9"], kept)
    names = ["reasoning", "perception", "perception", "reasoning", "none"]
    places = [(0, 1), (0, 3), (1, 1), (1, 2), (1, 9)]
    assert [found.find(*place) for place in places] == names
    assert [found.find(0, 2), found.find(1, 10), found.find(2, 1)] == [None, None, None]
