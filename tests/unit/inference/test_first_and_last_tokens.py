"""The beginning and the end of texts: one rule for all that reads prompts, several end tokens, documents as in a corpus."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import processors

from priorkit.architectures.registry import check_model
from priorkit.core.process import runtime
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.runner.asking import RequestOptions
from priorkit.evaluation.runner.prompts import PromptBuilder
from priorkit.evaluation.runner.request_runner import run_requests
from priorkit.evaluation.tasks.item import Item
from priorkit.evaluation.tasks.registry import TASKS
from priorkit.inference.answer_cache import AnswerCache
from priorkit.inference.likelihood import scoring
from priorkit.inference.loading import load_model_adapter
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.labelling.language_models.likelihood import LikelihoodLabeller
from priorkit.labelling.language_models.prompts import LikelihoodPrompt
from priorkit.mle_bench.synonym_model import SynonymModel, check_synonym_model
from priorkit.training.engine.validation_loss import ValidationText


def with_bos(model: ModelAdapter) -> ModelAdapter:
    """The same model with a tokenizer that puts a beginning-of-text token before every text, as Llama's."""
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return replace(model, tokenizer=tokenizer)


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("template", [True, False])
def test_prompts_begin_alike_in_evaluation_labelling_and_synonyms(
    llm: ModelAdapter,
    llm_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    adds: bool,
    template: bool,
) -> None:
    model = with_bos(llm) if adds else replace(llm, tokenizer=copy.deepcopy(llm.tokenizer))
    if not template:
        model.tokenizer.chat_template = None
    bos = [model.tokenizer.bos_token_id]
    asked: list[list[int]] = []
    original = scoring.score_batch

    def watch(subject: Any, requests: Any, inputs: Any) -> Any:
        asked.extend(list(request.context) for request in requests)
        return original(subject, requests, inputs)

    monkeypatch.setattr(scoring, "score_batch", watch)
    kind = "chat" if template else "plain"
    item = Item("1", question="What?", choices=("cat", "dog"), answer=0)
    options = RequestOptions(PromptBuilder(model.tokenizer, kind, "text"), 4, 8)
    cache = AnswerCache(tmp_path / "a", "b")
    run_requests(model, options, [item], TASKS["choice"], "likelihood", Rejects(0.0), "b", cache)

    prompt = LikelihoodPrompt("", "Text: ", {"a": "\na?\nAnswer:"}, (" yes",), (" no",))
    asked.append(LikelihoodLabeller(model, prompt, kind, 2)._before)

    monkeypatch.setattr("priorkit.inference.loading.load_model_adapter", lambda *_: model)
    started = runtime.start_portable(1, "cpu", "fp32")
    SynonymModel(check_synonym_model(llm_folder), 4, started, tmp_path / "s").judge([("car", "tree")])
    assert len(asked) >= 3
    for context in asked:
        assert (context[:1] == bos, context[1:2] == bos) == (adds, False)


def test_a_list_of_end_tokens_ends_answers(llm_folder: Path, tmp_path: Path) -> None:
    model = load_model_adapter(check_model(llm_folder), torch.device("cpu"))
    own = model.tokenizer.eos_token_id
    for configured, expected in (([own, 7], {own, 7}), (7, {own, 7}), (None, {own}), ([], {own})):
        model.model.generation_config.eos_token_id = configured
        assert model.end_tokens == expected
    model.model.config.eos_token_id = [own, 7]
    model.model.generation_config.eos_token_id = [own, 7]
    folder = tmp_path / "llm"
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    assert load_model_adapter(check_model(folder), torch.device("cpu")).end_tokens == {own, 7}


def test_perplexity_reads_documents_as_validation_during_pretraining(
    llm: ModelAdapter, tmp_path: Path
) -> None:
    text = "a bird </s> and <image> or <s>"
    (ids,) = llm.document_encoder.ids([text])
    assert not {llm.tokenizer.eos_token_id, llm.tokenizer.bos_token_id} & set(ids)
    validation = ValidationText([text], llm.tokenizer, 64, 1)
    assert validation._ids_RT[0, : len(ids)].tolist() == ids
    options = RequestOptions(PromptBuilder(llm.tokenizer, "plain", "text"), 4, 8)
    cache = AnswerCache(tmp_path / "a", "b")
    items = [Item("1", text=text)]
    _, (answer,) = run_requests(
        llm, options, items, TASKS["perplexity"], "likelihood", Rejects(0.0), "b", cache
    )
    assert answer.tokens == (len(ids),)
