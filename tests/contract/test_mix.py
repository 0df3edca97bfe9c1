"""The command ``mix``: what is in a corpus, and the same bytes however it was made."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from priorkit.core.artifact import open_artifact
from priorkit.data.corpus.reader import Corpus
from priorkit.data.io import json_lines, parquet
from priorkit.data.io.rejects import Rejects
from priorkit.data.text.concepts import CONCEPTS
from priorkit.data.text.documents import read_documents

WORDS = [
    "the",
    "a",
    "symbol",
    "circle",
    "red",
    "blue",
    "above",
    "below",
    "number",
    "seven",
    "star",
    "of",
    "and",
    "is",
    "has",
    "Ωmega",
    "naïve",
    "象",
]


def texts(seed: int, count: int, longest: int = 60) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, longest))) + "." for _ in range(count)]


def write_lines(path: Path, documents: list[str], **columns: list) -> Path:
    rows = [
        {"text": text, **{name: values[at] for name, values in columns.items()}}
        for at, text in enumerate(documents)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """Two sources with some copies within and between them."""
    folder = tmp_path_factory.mktemp("sources")
    a, b = texts(1, 300), texts(2, 200, 150)
    return {
        "a": write_lines(folder / "a.jsonl", [*a, *a[:20]]),
        "b": write_lines(folder / "b.jsonl", [*b, *a[30:40]]),
    }


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are cut into many parts."""
    for module in (json_lines, parquet):
        monkeypatch.setattr(module, "PART_BYTES", 3000)
    monkeypatch.setattr(json_lines, "COMPRESSED_PART_BYTES", 1000)
    monkeypatch.setattr(json_lines, "_BLOCK_BYTES", 700)
    monkeypatch.setattr("priorkit.data.corpus.tokenization.PART_BYTES", 3000)


@pytest.fixture
def mix(cli, artifacts, sources, tmp_path: Path):
    """Mix and return the corpus's folder."""

    def run(name: str, *options: object, given: dict[str, Path] = sources) -> Path:
        arguments = [f"{source}={path}" for source, path in given.items()]
        done = cli(
            "mix",
            *arguments,
            "--tokenizer",
            artifacts.tokenizer,
            "--context-length",
            32,
            *options,
            "--out",
            tmp_path / name,
        )
        assert done.code == 0, done.err
        return done.path

    return run


@pytest.fixture
def refused(cli, artifacts, sources, tmp_path: Path):
    """Mix and return the message."""

    def run(code: int, *options: object, given: dict[str, Path] = sources) -> str:
        arguments = [f"{source}={path}" for source, path in given.items()]
        done = cli(
            "mix",
            *arguments,
            "--tokenizer",
            artifacts.tokenizer,
            "--context-length",
            32,
            *options,
            "--out",
            tmp_path / "no",
        )
        assert (done.code, done.out) == (code, ""), done.err
        return done.err

    return run


def digest(folder: Path) -> str:
    return open_artifact(folder).digest


def header(folder: Path) -> dict:
    return json.loads((folder / "corpus.json").read_text())


def decoded(folder: Path) -> list[str]:
    """The documents and cut pieces of a corpus, row by row, as text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    corpus = Corpus(folder)
    found: list[str] = []
    for index in range(len(corpus)):
        row, ids = corpus.row(index), corpus.document_ids(index)
        found.extend(
            tokenizer.decode(row[ids == n].tolist(), skip_special_tokens=True) for n in range(ids[-1] + 1)
        )
    return found


def letters(folder: Path) -> list[str]:
    """The first letter of every token, empty for special ones."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [tokenizer.decode([token])[:1] for token in range(tokenizer.get_vocab_size())]


OPTIONS = (
    (),
    ("--weight", "a=0.7,b=0.3", "--tokens", "9k", "--packing", "best-fit-decreasing"),
    ("--deduplicate", "--held-out", "0.05", "--weight-unit", "documents", "--packing", "best-fit-crop"),
)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.usefixtures("small_parts")
def test_the_bytes_depend_neither_on_the_workers_nor_on_the_parts(mix, options: tuple[str, ...]) -> None:
    one_worker = mix("one", *options, "--workers", 1)
    assert digest(mix("three", *options, "--workers", 3)) == digest(one_worker)
    parts = [mix(f"part{n}", *options, "--shard", f"{n}/3", "--workers", 1) for n in (1, 2, 3)]
    assert open_artifact(parts[0]).kind == "corpus-part"
    # The parts may be given in any order.
    joined = mix("joined", *options, "--parts", parts[2], "--parts", parts[0], "--parts", parts[1])
    assert digest(joined) == digest(one_worker)
    again = mix("part1-again", *options, "--shard", "1/3", "--workers", 2)
    assert digest(again) == digest(parts[0])


@pytest.mark.usefixtures("small_parts")
def test_broken_rows_are_reported_with_their_lines_however_read(mix, sources, tmp_path: Path) -> None:
    lines = sources["a"].read_text().splitlines()
    lines[3], lines[200], lines[310] = "{", '{"txt": 1}', '{"text": "\\ud800"}'
    given = {"a": tmp_path / "broken.jsonl"}
    given["a"].write_text("\n".join(lines))
    limit = ("--reject-limit", 0.05)
    one_run = mix("one", *limit, given=given)
    rejects = [json.loads(line) for line in (one_run / "rejects.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rejects] == [4, 201, 311]
    assert "lone surrogate" in rejects[2]["reason"]
    parts = [mix(f"part{n}", *limit, "--shard", f"{n}/2", given=given) for n in (1, 2)]
    assert digest(mix("joined", *limit, "--parts", ",".join(map(str, parts)), given=given)) == digest(one_run)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".json", "/"])
@pytest.mark.usefixtures("small_parts")
def test_every_format_gives_every_document_once(mix, tmp_path: Path, suffix: str) -> None:
    documents = [f"{n}: {text}" for n, text in enumerate(texts(5, 150))]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents).encode()
    path = tmp_path / f"source{suffix}"
    if suffix == "/":
        path.mkdir()
        for number, text in enumerate(documents):
            (path / f"{number:03d}.txt").write_text(text)
    elif suffix == ".parquet":
        pq.write_table(pa.table({"text": documents}), path, row_group_size=20)
    elif suffix == ".json":
        path.write_text(json.dumps([{"text": text} for text in documents]))
    else:
        path.write_bytes({".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstd}[suffix](lines))
    corpus = mix(
        "corpus",
        "--packing",
        "best-fit-decreasing",
        "--context-length",
        256,
        "--workers",
        2,
        given={"s": path},
    )
    found = [text for text in decoded(corpus) if text]
    assert sorted(found) == sorted(documents)
    assert header(corpus)["documents"] == 150


def test_text_of_special_tokens_is_plain_text(mix, artifacts, tmp_path: Path) -> None:
    text = "before </s> and <image> and <pad> after"
    corpus = mix(
        "corpus",
        "--packing",
        "best-fit-decreasing",
        "--context-length",
        64,
        given={"s": write_lines(tmp_path / "s.jsonl", [text])},
    )
    row, ids = Corpus(corpus).row(0), Corpus(corpus).document_ids(0)
    settings = json.loads((artifacts.tokenizer / "tokenizer_config.json").read_text())
    vocabulary = json.loads((artifacts.tokenizer / "tokenizer.json").read_text())["model"]["vocab"]
    special = {vocabulary[name] for name in ("</s>", "<image>", "<pad>", "<s>")}
    (tokens,) = (row[ids == 0],)
    assert [token for token in tokens.tolist() if token in special] == [vocabulary[settings["eos_token"]]]
    assert tokens[-1] == vocabulary["</s>"]
    assert decoded(corpus)[0] == text


def test_tokens_are_those_of_transformers(mix, artifacts, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    documents = texts(9, 20)
    corpus = mix(
        "corpus",
        "--packing",
        "best-fit-decreasing",
        "--context-length",
        512,
        given={"s": write_lines(tmp_path / "s.jsonl", documents)},
    )
    tokenizer = AutoTokenizer.from_pretrained(corpus)
    expected = {
        (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
        for text in documents
    }
    rows = Corpus(corpus)
    found = set()
    for index in range(len(rows)):
        row, ids = rows.row(index), rows.document_ids(index)
        found |= {tuple(row[ids == n].tolist()) for n in range(ids[-1] + 1)}
    assert expected <= found
    assert all(set(extra) == {tokenizer.pad_token_id} for extra in found - expected)


@pytest.mark.parametrize("packing", ["concat", "best-fit-crop", "best-fit-decreasing"])
def test_document_ids_follow_the_documents_also_where_they_are_cut(mix, tmp_path: Path, packing: str) -> None:
    """Every document is one letter, so a change of letter is a change of document."""
    given = {"s": write_lines(tmp_path / "s.jsonl", [chr(97 + n % 26) * (3 + n * 7 % 90) for n in range(78)])}
    corpus = Corpus(mix("corpus", "--packing", packing, given=given))
    padding, first = header(tmp_path / "corpus")["pad_token_id"], letters(tmp_path / "corpus")
    for index in range(len(corpus)):
        row, ids = corpus.row(index).tolist(), corpus.document_ids(index).tolist()
        assert len(ids) == 32
        assert ids[0] == 0
        for at in range(1, 32):
            before, now = row[at - 1], row[at]
            if now == padding:
                new = before != now
            elif first[before]:
                new = first[now] not in ("", first[before])
            else:
                new = True
            assert ids[at] - ids[at - 1] == int(new), (packing, index, at)


def test_realized_shares_are_those_of_the_rows(mix, sources, tmp_path: Path) -> None:
    given = {
        name: write_lines(tmp_path / f"{name}.jsonl", [letter * 60] * 50)
        for name, letter in (("x", "x"), ("y", "y"))
    }
    corpus = mix("corpus", "--weight", "x=3,y=1", "--tokens", "4k", given=given)
    tokens = Counter(
        letters(corpus)[token] for n in range(header(corpus)["rows"]) for token in Corpus(corpus).row(n)
    )
    share = tokens["x"] / (tokens["x"] + tokens["y"])
    assert header(corpus)["shares"]["x"] == pytest.approx(0.75, abs=0.002)
    assert share == pytest.approx(0.75, abs=0.01)
    assert open_artifact(corpus).manifest.metrics["shares"] == header(corpus)["shares"]


def test_duplicates_are_counted_and_left_out(mix) -> None:
    corpus = mix("corpus", "--deduplicate", "--packing", "best-fit-decreasing", "--context-length", 1024)
    assert header(corpus)["duplicates"] == {"a": 20, "b": 10}
    found = [text for text in decoded(corpus) if text]
    assert len(found) == len(set(found)) == 500


def test_held_out_text_is_in_no_row_and_can_be_evaluated(
    mix, cli, artifacts, sources, tmp_path: Path
) -> None:
    corpus = mix("corpus", "--held-out", "400", "--packing", "best-fit-decreasing", "--context-length", 1024)
    held = {name: list(read_documents(corpus / "held_out" / f"{name}.jsonl", Rejects(0))) for name in sources}
    trained = [text for text in decoded(corpus) if text]
    everything = {name: list(read_documents(path, Rejects(0))) for name, path in sources.items()}
    for name, documents in held.items():
        facts = header(corpus)["held_out"][name]
        assert facts["documents"] == len(documents) == len(set(documents)) > 0
        assert facts["tokens"] >= 400
        assert set(documents) <= set(everything[name])
        assert not set(documents) & set(trained)
    gone = {text for documents in held.values() for text in documents}
    assert sorted(trained) == sorted(
        text for documents in everything.values() for text in documents if text not in gone
    )
    scored = cli(
        "evaluate",
        artifacts.llm,
        corpus / "held_out" / "a.jsonl",
        "--task",
        "perplexity",
        "--out",
        tmp_path / "e",
    )
    assert scored.code == 0, scored.err


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("labelled")
    chance = random.Random(3)
    found = {}
    for name, likely in (("web", 0.15), ("code", 0.6)):
        labels = [
            [concept for concept in CONCEPTS if chance.random() < (likely if "reason" in concept else 0.1)]
            for _ in range(400)
        ]
        found[name] = write_lines(folder / f"{name}.jsonl", texts(len(name), 400), labels=labels)
    return found


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--weight", "web=1,code=1", "--packing", "best-fit-decreasing"),
        ("--tokens", "15k", "--held-out", 0.02, "--deduplicate"),
    ],
)
def test_targets_are_met_in_the_rows(mix, labelled, options) -> None:
    corpus = mix("corpus", *options, "--target", "reasoning=0.60", "--target", "visual=0.15", given=labelled)
    found = header(corpus)
    assert found["labels"]["reasoning"] == pytest.approx(0.60, abs=0.005)
    assert found["labels"]["visual"] == pytest.approx(0.15, abs=0.005)
    assert found["targets"] == {"reasoning": 0.6, "visual": 0.15}
    # Counted from the text again.
    has: dict[str, set[str]] = {}
    for path in labelled.values():
        for line in path.read_text().splitlines():
            row = json.loads(line)
            has.setdefault(row["text"], set()).update(label.split("_")[1] for label in row["labels"])
    if "best-fit-decreasing" in options:
        tokens = {"reasoning": 0, "all": 0}
        rows = Corpus(corpus)
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(corpus / "tokenizer.json"))
        for index in range(len(rows)):
            row, ids = rows.row(index), rows.document_ids(index)
            for n in range(ids[-1] + 1):
                text = tokenizer.decode(row[ids == n].tolist())
                if text in has:
                    tokens["all"] += int((ids == n).sum())
                    tokens["reasoning"] += int((ids == n).sum()) * ("reasoning" in has[text])
        assert tokens["all"] > 1000
    assert abs(sum(found["shares"].values()) - 1) < 1e-9


@pytest.mark.parametrize(
    ("options", "code", "messages"),
    [
        (("--target", "visual=0.99", "--tokens", "200k"), 2, ["visual = 99.0% of 200,000 tokens are 198,000", "carry it", "raise --max-epochs"]),
        (("--target", "visual=0.5", "--weight-unit", "documents"), 2, ["targets are shares of tokens"]),
        (("--target", "vision=0.5"), 2, ["no label is named 'vision'", "visual"]),
        (("--weight", "web=1"), 2, ["no weight for code", "give 0 to leave one out"]),
        (("--source-epochs", "wob=2"), 2, ["--source-epochs", "no source is named 'wob'", "did you mean 'web'"]),
        (("--source-epochs", "web=0"), 2, ["should be greater than 0, got 0"]),
        (("--source-epochs", "web=1", "--tokens", "90k", "--weight", "web=1,code=0"), 2, ["tokens of 'web' are needed", "allowed are 1"]),
        (("--subset", "web=en"), 3, ["only hub datasets have subsets"]),
        (("--shard", "4/3"), 2, ["the part runs from 1 to 3, got 4"]),
        (("--shard", "two"), 2, ["expected I/N such as 1/8, got 'two'"]),
        (("--held-out", "0"), 2, ["--held-out", "greater than 0"]),
        (("--held-out", "much"), 2, ["--held-out"]),
        (("--held-out", "100.5"), 2, ["expected a whole number of tokens"]),
        (("--held-out", "1M"), 3, ["of 'web' nothing is left to train on", "of 'code' nothing is left"]),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_reported(refused, labelled, options, code: int, messages: list[str]) -> None:
    said = refused(code, *options, given=labelled)
    for message in messages:
        assert message in said, said


def test_targets_need_labels(refused, sources, tmp_path: Path) -> None:
    assert "no column 'labels', which --target needs" in refused(3, "--target", "visual=0.1")
    given = {"s": write_lines(tmp_path / "s.jsonl", ["x"] * 9, labels=[["visual_concpt"]] * 9)}
    said = refused(3, "--target", "visual=0.1", given=given)
    assert "unknown label 'visual_concpt'" in said
    assert "did you mean 'visual_concept'" in said


def test_a_name_that_is_no_file_name(refused, sources) -> None:
    assert "'../a' is not a valid source name" in refused(2, given={"../a": sources["a"]})


def test_parts_that_do_not_match_are_reported(mix, refused, cli, artifacts, sources, tmp_path: Path) -> None:
    one, two = (mix(f"part{n}", "--shard", f"{n}/2") for n in (1, 2))
    assert "of 2 parts these are missing: 2" in refused(3, "--parts", one)
    assert "part 1/2 is given twice" in refused(3, "--parts", f"{one},{two},{one}")
    assert "it was made with hashed = False, now True" in refused(
        3, "--parts", f"{one},{two}", "--deduplicate"
    )
    assert "give one of them" in refused(2, "--parts", one, "--shard", "1/2")
    changed = {**sources, "b": write_lines(tmp_path / "b.jsonl", texts(7, 5))}
    assert f"sources.b ({changed['b']}) is not what it was made from" in refused(
        3, "--parts", f"{one},{two}", given=changed
    )
    assert "it also holds sources.b" in refused(3, "--parts", f"{one},{two}", given={"a": sources["a"]})
    complete = mix("whole")
    assert "expected corpus-part, got an artifact of kind 'corpus'" in refused(3, "--parts", complete)
    result = cli("pretrain", one, "--preset", "pocket-tiny", "--out", tmp_path / "llm")
    assert (result.code, result.out) == (3, "")
    assert "corpus-part" in result.err


def test_a_tokenizer_without_an_end_token_is_reported(cli, artifacts, sources, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((artifacts.tokenizer / "tokenizer.json").read_bytes())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    done = cli("mix", f"a={sources['a']}", "--tokenizer", folder, "--out", tmp_path / "no")
    assert (done.code, done.out) == (3, "")
    assert "the tokenizer has no end-of-sequence token" in done.err


def test_document_starts_load_with_safetensors(mix) -> None:
    corpus = mix("corpus", "--context-length", 33)
    arrays = load_file(corpus / "tokens-00000.safetensors")
    assert arrays["tokens"].dtype == np.uint16
    assert arrays["document_starts"].dtype == np.int64
    assert (np.diff(arrays["document_starts"]) > 0).all()


def test_a_hub_dataset_gives_its_split_and_its_revision(shell, artifacts, tmp_path: Path) -> None:
    """From a cache as the hub's client leaves it, without a network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "datasets--owner--two"
    snapshot = repository / "snapshots" / commit
    for subset in ("en", "fr"):
        for split in ("train", "test"):
            (snapshot / subset).mkdir(parents=True, exist_ok=True)
            pq.write_table(
                pa.table({"text": [f"{subset} {split} {n}" for n in range(40)]}),
                snapshot / subset / f"{split}.parquet",
            )
    configs = "".join(
        f"- config_name: {subset}\n  data_files:\n"
        + "".join(f"  - split: {split}\n    path: {subset}/{split}.parquet\n" for split in ("train", "test"))
        for subset in ("en", "fr")
    )
    (snapshot / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}

    def run(source: str, *options: object, out: str = "no"):
        return shell(
            "mix", f"s={source}", "--tokenizer", artifacts.tokenizer, "--context-length", 64, *options,
            "--packing", "best-fit-decreasing", "--out", tmp_path / out, env=environment,
        )  # fmt: skip

    done = run("owner/two", "--subset", "s=fr", out="corpus")
    assert done.code == 0, done.err
    assert sorted(filter(None, decoded(done.path))) == sorted(f"fr train {n}" for n in range(40))
    (record,) = (item for item in open_artifact(done.path).manifest.inputs if item.setting == "sources.s")
    assert (record.kind, record.digest) == ("hub", commit)
    for options, messages in (
        ((), ["the dataset has several subsets", "--subset NAME=SUBSET", "en, fr"]),
        (("--subset", "s=fn"), ["no subset 'fn'"]),
        (("--subset", "s=fr", "--split", "trian"), ["no split 'trian'", "did you mean 'train'"]),
    ):
        result = run("owner/two", *options)
        assert (result.code, result.out) == (3, "")
        for message in messages:
            assert message in result.err, result.err
    result = run("owner/three")
    assert result.code == 3
    assert "offline, only what is in the hub's cache can be used" in result.err


def test_a_source_of_copies_is_reported(refused, sources) -> None:
    said = refused(3, "--deduplicate", given={"a": sources["a"], "again": sources["a"]})
    assert "nothing is left of 'again': all 320 documents are in the sources before it" in said


def test_a_tokenizer_of_conversations_knows_the_words_of_the_chat_template(cli, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    chats = tmp_path / "chats.jsonl"
    turns = [{"from": "human", "value": "What is shown?"}, {"from": "gpt", "value": "an anchor"}]
    rows = [{"id": str(number), "conversations": turns} for number in range(40)]
    rows.append({"id": "broken", "conversations": [{"from": "robot", "value": "?"}]})
    chats.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = tmp_path / "text.txt"
    text.write_text("one text of other words")
    words = ("--vocab-size", 320, "--reject-limit", 0.1)
    found = cli("tokenizer", f"chats={chats}", f"text={text}", *words, "--out", tmp_path / "out")
    assert found.code == 0, found.err
    vocabulary = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json")).get_vocab()
    assert {"USER", "ASSISTANT", "Ġanchor", "Ġshown"} <= set(vocabulary)
    counted = json.loads((tmp_path / "out/priorkit.json").read_text())["metrics"]
    assert (counted["documents"], counted["rejected"]) == (42, 1)
    refused = cli("tokenizer", f"chats={chats}", "--text-column", "body", "--out", tmp_path / "other")
    assert refused.code == 3
    assert "body" in refused.err
