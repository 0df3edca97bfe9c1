"""Training, evaluation and AutoProcessor agree on what precedes the first word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoProcessor

from priorkit.data.images.decoding import decode
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.models.kernels.cross_entropy import IGNORE
from priorkit.models.language.tokenizer import CHAT_TEMPLATE, bos_ids, load_tokenizer, prepend_bos
from priorkit.models.multimodal.llava import load_llava
from tests.support.chat_models import make_llava, make_tokenizer, picture

TURNS = [("user", "<image>\nWhat is shown here?"), ("assistant", "A grey heron.")]
MESSAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is shown here?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A grey heron."}]},
]


def saved(tmp_path: Path, adds: bool, template: str | None = None) -> Path:
    """A LLaVA model whose tokenizer puts a beginning of text before every text, or does not."""
    tokenizer: Any = make_tokenizer(tmp_path / "tokenizer")
    if adds:
        tokenizer.add_bos_token = True
        tokenizer.save_pretrained(tmp_path / "adding")
        tokenizer = load_tokenizer(tmp_path / "adding")
    tokenizer.chat_template = template
    make_llava(tokenizer).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("adds", [True, False])
def test_training_reads_what_the_processor_makes_of_the_rendered_conversation(
    tmp_path: Path, adds: bool
) -> None:
    folder = saved(tmp_path, adds)
    processor = AutoProcessor.from_pretrained(folder)
    multimodal = load_llava(folder)
    chat = multimodal.chat_tokenizer()
    text = processor.apply_chat_template(MESSAGES)
    theirs = processor(text=text, images=decode(picture(1)), return_tensors="pt")["input_ids"][0].tolist()
    encoded = chat.encode(TURNS)
    assert encoded.input_ids == theirs
    bos = processor.tokenizer.bos_token_id
    assert [token == bos for token in theirs[:2]] == [adds, False]
    assert bos_ids(processor.tokenizer) == [bos] * adds
    assert encoded.labels[:2] == [IGNORE, IGNORE]
    assert (
        chat.tokenizer.decode([label for label in encoded.labels if label != IGNORE]) == " A grey heron.</s>"
    )
    # The prompt of an evaluation, and that of a processor which renders and tokenizes in one call.
    prompt = chat.render(TURNS[:1], add_generation_prompt=True)
    subject = ModelAdapter(multimodal.model, multimodal.tokenizer, 512, multimodal)
    assert (
        prepend_bos(subject.encode(prompt), subject.bos_ids)
        == chat.prompt(TURNS[:1])
        == theirs[: len(chat.prompt(TURNS[:1]))]
    )
    words = [{"role": "user", "content": [{"type": "text", "text": "What?"}]}]
    once = processor.apply_chat_template(words, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert list(once["input_ids"][0]) == chat.prompt([("user", "What?")])


def test_a_template_that_writes_the_beginning_itself_does_not_double_it(tmp_path: Path) -> None:
    for name, template in (("own", None), ("writes", "{{ bos_token }}" + CHAT_TEMPLATE)):
        (tmp_path / name).mkdir()
        chat = load_llava(saved(tmp_path / name, True, template)).chat_tokenizer()
        ids = chat.encode(TURNS).input_ids
        assert ids.count(chat.tokenizer.bos_token_id) == 1
        assert ids[0] == chat.tokenizer.bos_token_id
