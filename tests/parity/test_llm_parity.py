"""Language models, their tokenizers and losses are those of transformers and torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from priorkit.data.corpus.reader import Corpus
from priorkit.models.kernels import cross_entropy as loss_module
from priorkit.models.kernels.cross_entropy import IGNORE, count_targets, token_loss
from priorkit.models.language.causal_lm import build_config, load_llm, parameter_count, preset_fields, presets
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.models.language.tokenizer import load_tokenizer
from priorkit.training.objectives.language_modeling import CausalLMObjective, CausalLMWithLoss


def test_an_llm_loads_unchanged_and_gives_the_same_logits(artifacts) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(artifacts.llm).eval()
    ours = load_llm(artifacts.llm).eval()
    ids = torch.from_numpy(Corpus(artifacts.corpus).row(0))[None]
    with torch.no_grad():
        assert torch.equal(theirs(ids).logits, ours(ids).logits)
    tokenizer = AutoTokenizer.from_pretrained(artifacts.llm)
    text = "The heron stands 12 m away; naïve ☃ code: x == 1\n"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert load_tokenizer(artifacts.tokenizer).get_vocab() == tokenizer.get_vocab()


def test_the_pretraining_loss_equals_transformers(artifacts) -> None:
    model = AutoModelForCausalLM.from_pretrained(artifacts.llm)
    corpus = Corpus(artifacts.corpus)
    objective = CausalLMObjective(CausalLMWithLoss(model), corpus, None)
    batch = objective.collate([objective.sample(index, index) for index in range(4)])
    ours = objective.loss(batch).total / objective.weight(batch)
    torch.testing.assert_close(ours, model(batch["input_ids"], labels=batch["input_ids"]).loss)


@pytest.mark.parametrize("chunk", [3, 2048])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("bias", [False, True])
def test_token_loss_is_torchs_cross_entropy_with_its_gradient(
    chunk: int, share: float, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_TOKENS", chunk)
    torch.manual_seed(1)
    labels = torch.randint(0, 11, (3, 7))
    labels[torch.rand(3, 7) < share] = IGNORE
    results: list[tuple[torch.Tensor, ...]] = []
    for full in (True, False):
        torch.manual_seed(2)
        head = nn.Linear(5, 11, bias=bias)
        hidden = torch.randn(3, 7, 5, requires_grad=True)
        if full:
            logits = head(hidden)[:, :-1].reshape(-1, 11)
            value = cross_entropy(logits, labels[:, 1:].reshape(-1), ignore_index=IGNORE, reduction="sum")
        else:
            value = token_loss(hidden, labels, head)
        value.backward()
        gradients = [tensor.grad for tensor in (hidden, *head.parameters()) if tensor.grad is not None]
        results.append((value.detach(), *gradients))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    assert count_targets(labels) == int((labels[:, 1:] != IGNORE).sum())


@pytest.mark.parametrize("name", presets())
def test_the_count_of_parameters_is_the_models(name: str, artifacts) -> None:
    tokenizer = load_tokenizer(artifacts.tokenizer)
    config = build_config(preset_fields(name), tokenizer)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    assert parameter_count(preset_fields(name), len(tokenizer)) == model.num_parameters()


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token }}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)
TURNS = [
    ("user", "What is it?"),
    ("assistant", "A heron, of 3 kg."),
    ("user", "And that?"),
    ("assistant", "naïve ☃"),
]


@pytest.mark.parametrize(
    ("template", "answers"),
    [
        (None, [" A heron, of 3 kg.</s>", " naïve ☃</s>"]),
        (CHATML, ["A heron, of 3 kg.<|im_end|>", "naïve ☃<|im_end|>"]),
        (LLAMA_2, [" A heron, of 3 kg. </s>", " naïve ☃ </s>"]),
    ],
)
def test_only_the_answers_are_supervised(artifacts, template: str | None, answers: list[str]) -> None:
    tokenizer = load_tokenizer(artifacts.tokenizer)
    tokenizer.chat_template = template
    encoded = ChatTokenizer(tokenizer, 1, 10_000).encode(TURNS)
    assert tokenizer.decode([label for label in encoded.labels if label != IGNORE]) == "".join(answers)
    assert all(
        label in (IGNORE, token) for token, label in zip(encoded.input_ids, encoded.labels, strict=True)
    )
    messages = [{"role": role, "content": text} for role, text in TURNS]
    assert tokenizer.decode(encoded.input_ids) == tokenizer.apply_chat_template(messages, tokenize=False)
    if template is None:
        theirs = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        assert theirs["input_ids"] == encoded.input_ids
        assert [bool(mask) for mask in theirs["assistant_masks"]] == [
            label != IGNORE for label in encoded.labels
        ]


def test_the_prompt_is_the_beginning_of_the_training_text(artifacts) -> None:
    chat = ChatTokenizer(load_tokenizer(artifacts.tokenizer), 4, 10_000)
    turns = [("user", "<image>\nWhat?"), *TURNS[1:]]
    prompt = chat.prompt(turns[:-1])
    encoded = chat.encode(turns)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.labels[len(prompt)] == encoded.input_ids[len(prompt)]
    assert prompt.count(chat.tokenizer.convert_tokens_to_ids("<image>")) == 4


def test_long_conversations_are_truncated_but_never_an_image(artifacts) -> None:
    tokenizer = load_tokenizer(artifacts.tokenizer)
    untruncated = ChatTokenizer(tokenizer, 4, 10_000).encode(
        [("user", "<image>\nWhat?"), ("assistant", "x " * 50)]
    )
    cut = ChatTokenizer(tokenizer, 4, 40).encode([("user", "<image>\nWhat?"), ("assistant", "x " * 50)])
    assert not untruncated.truncated
    assert cut.truncated
    assert cut.input_ids == untruncated.input_ids[:40]
    from priorkit.core.errors import InputError

    with pytest.raises(InputError, match="no answer begins within the maximum length of 12 tokens"):
        ChatTokenizer(tokenizer, 4, 12).encode([("user", "<image>\nWhat?"), ("assistant", "x " * 50)])
    with pytest.raises(InputError, match="an image is beyond the maximum length of 8 tokens"):
        ChatTokenizer(tokenizer, 9, 8).encode([("user", "<image>\nWhat?"), ("assistant", "x")])


def test_a_template_that_rewrites_earlier_turns_is_refused(artifacts) -> None:
    tokenizer = load_tokenizer(artifacts.tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ messages|length }}{{ m['content']|upper }}{% endfor %}"
    )
    from priorkit.core.errors import InputError

    with pytest.raises(InputError, match="changes the text of turns"):
        ChatTokenizer(tokenizer, 1, 100).encode([*TURNS, ("user", "and?"), ("assistant", "then")])


def test_tuned_without_images_it_still_loads(artifacts, cli, tmp_path: Path) -> None:
    found = cli(
        "blind-tune", artifacts.llm, artifacts.instructions, "--steps", 2, "--batch-size", 4, "--precision", "fp32",
        "--device", "cpu", "--out", tmp_path / "blind",
    )  # fmt: skip
    assert found.code == 0, found.err
    model = AutoModelForCausalLM.from_pretrained(found.path)
    before = AutoModelForCausalLM.from_pretrained(artifacts.llm)
    changed = [not torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    assert any(changed)
    assert AutoTokenizer.from_pretrained(found.path).chat_template


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("cohere", {"logit_scale": 0.25}),
        ("granite", {"logits_scaling": 8.0}),
        ("gemma2", {"final_logit_softcapping": 5.0, "head_dim": 8}),
        ("gpt2", {}),
    ],
)
def test_scaled_and_capped_logits_give_the_models_loss(family: str, fields: dict[str, Any]) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 40}
    if family != "gpt2":
        sizes |= {"intermediate_size": 48, "num_key_value_heads": 2}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **sizes, **fields, pad_token_id=0, bos_token_id=0, eos_token_id=1)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)
    ids = torch.arange(24).reshape(2, 12)
    expected = model(input_ids=ids, labels=ids).loss
    ours = CausalLMWithLoss(model)(ids, ids) / count_targets(ids)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
