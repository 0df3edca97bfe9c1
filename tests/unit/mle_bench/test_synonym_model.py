"""The synonym model: its probabilities against the transformers model, and resuming from its cache."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from priorkit.core.errors import InputError
from priorkit.core.process import runtime
from priorkit.mle_bench.synonym_model import PLAIN_QUESTION, SynonymModel, check_synonym_model
from priorkit.models.language.causal_lm import build_config, build_llm, preset_fields
from priorkit.models.language.tokenizer import CHAT_TEMPLATE
from tests.support.evaluation_models import build_tokenizer

PAIRS = [("car", "tree"), ("couch", "sofa"), ("a {b}", "dining table")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synonyms") / "llm"
    fields = {**preset_fields("pocket-tiny"), "initializer_range": 0.3}
    build_llm(build_config(fields, build_tokenizer(path)), 5).save_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template = None
    (path / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(path)
    return path


def load(folder: Path, cache: Path, batch_size: int = 32) -> SynonymModel:
    started = runtime.start_portable(1, "cpu", "fp32")
    return SynonymModel(check_synonym_model(folder), batch_size, started, cache)


def log_probability(model, tokenizer, text: str, answers: tuple[str, ...]) -> float:
    """Log of the summed probabilities of the answers after the text."""
    totals = []
    for answer in answers:
        start = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        ids = torch.tensor([tokenizer(text + answer, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            logits = model(ids).logits[0].double().log_softmax(-1)
        totals.append(sum(float(logits[place - 1, ids[0, place]]) for place in range(start, ids.shape[1])))
    return math.log(math.fsum(map(math.exp, totals)))


def test_probabilities_are_those_of_the_transformers_model(folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for verdict in load(folder, tmp_path).judge(PAIRS):
        odds = []
        for first, second in (verdict.pair, verdict.pair[::-1]):
            text = PLAIN_QUESTION.replace("{first}", first).replace("{second}", second)
            yes = log_probability(model, tokenizer, text, (" yes", " Yes"))
            odds.append(yes - log_probability(model, tokenizer, text, (" no", " No")))
        assert verdict.yes == pytest.approx(1 / (1 + math.exp(-sum(odds) / 2)), abs=2e-5)


def test_order_of_the_names_and_batches_do_not_matter(folder: Path, tmp_path: Path) -> None:
    verdicts = load(folder, tmp_path / "a").judge(PAIRS)
    swapped = load(folder, tmp_path / "b", batch_size=3).judge([(second, first) for first, second in PAIRS])
    assert [verdict.yes for verdict in verdicts] == [verdict.yes for verdict in swapped]


def test_a_chat_template_changes_the_question(folder: Path, tmp_path: Path) -> None:
    chat = tmp_path / "chat"
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(chat)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(chat)
    plain = load(folder, tmp_path / "a").judge(PAIRS)
    assert [verdict.yes for verdict in load(chat, tmp_path / "b").judge(PAIRS)] != [
        verdict.yes for verdict in plain
    ]


def test_cached_answers_are_not_computed_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from priorkit.inference.likelihood import scoring

    verdicts = load(folder, tmp_path).judge(PAIRS)
    monkeypatch.setattr(scoring, "score_batch", lambda *_: pytest.fail("computed again"))
    assert load(folder, tmp_path).judge(PAIRS) == verdicts


def test_a_folder_without_a_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        check_synonym_model(tmp_path)
