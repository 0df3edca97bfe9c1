"""Tokenizers: trained with the tokenizers library, saved so that ``AutoTokenizer`` loads them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorkit.core.boxes import LOCATION_TOKENS, BoxWriter
from priorkit.core.errors import InputError, library_reads
from priorkit.models.folder import refuse_surrogates
from priorkit.models.language.content_parts import with_parts
from priorkit.models.language.conversation_formats import use_template
from priorkit.models.language.word_splitting import DEFAULT, WordSplitting, word_splitter

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

BOS, EOS, PAD, IMAGE = "<s>", "</s>", "<pad>", "<image>"

LONGEST_WORD = 1024
"""Bytes of a word, or of a run of punctuation or blanks, that a tokenizer is trained on in one piece."""

CHAT_TEMPLATE = with_parts(
    """\
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}{{ message['content'] }}{{ '\\n' }}
{%- elif message['role'] == 'user' -%}{{ 'USER: ' }}{{ message['content'] }}{{ '\\n' }}
{%- elif message['role'] == 'assistant' -%}{{ 'ASSISTANT:' }}{% generation %}{{ ' ' }}
{{- message['content'] }}{{ eos_token }}{% endgeneration %}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
""",
    IMAGE,
)
"""The default chat template, as in LLaVA 1.5, for tokenizers without one.

Like LLaVA 1.5's it does not write a BOS token: tokenizers that need one (Llama, Vicuna) add it when they are
called, as ``AutoProcessor`` does; see :func:`bos_ids`.
"""


def render_chat(turns: Iterable[tuple[str, str]]) -> str:
    """A conversation as the default chat template writes it, without special tokens: what to train a tokenizer on.

    Args:
        turns: role and text of each turn.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [{"role": role, "content": text} for role, text in turns]
    (text,), _ = render_jinja_template([messages], chat_template=CHAT_TEMPLATE, eos_token="")
    return text


def train_bpe(documents: Iterable[str], vocab_size: int, words: WordSplitting = DEFAULT) -> Tokenizer:
    """Train a byte-level BPE tokenizer.

    Args:
        documents: the texts.
        vocab_size: the vocabulary size, including the four special tokens and the 256 bytes.
        words: how text is split into words.

    Raises:
        InputError: there is no text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = word_splitter(words)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD, IMAGE],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    train_on_words(tokenizer, documents, trainer)
    if tokenizer.get_vocab_size() <= 4 + 256:
        raise InputError("the sources contain no text to train a tokenizer on")
    warn_of_small_vocabulary(tokenizer.get_vocab_size(), vocab_size)
    return tokenizer


def train_on_words(tokenizer: Tokenizer, texts: Iterable[str], trainer: Any) -> None:
    """Train a byte-level BPE tokenizer; words of more than :data:`LONGEST_WORD` bytes are cut for training only.

    Each merge takes time in proportion to the words it occurs in, so that a single long one, such as base64 or a
    line of dashes, would multiply the time of all merges.
    """
    from tokenizers import Regex, pre_tokenizers

    words = tokenizer.pre_tokenizer
    assert words is not None
    # A character per byte: the words are byte-level already.
    cut = pre_tokenizers.Split(Regex(f".{{{LONGEST_WORD}}}"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, cut])
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = words


def warn_of_small_vocabulary(size: int, wanted: int) -> None:
    """Warn where a trained vocabulary has fewer tokens than were asked for."""
    if size < wanted:
        logger.warning(
            f"the vocabulary has {size:,} tokens instead of {wanted:,}: the texts have no further pairs of tokens "
            "to merge; give more text, or ask for fewer"
        )


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Save a trained tokenizer with special tokens and chat template, in Hugging Face's format."""
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE},
        clean_up_tokenization_spaces=False,
        model_max_length=1 << 20,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)


def load_tokenizer(folder: Path, template: str | None = None) -> PreTrainedTokenizerFast:
    """Load a tokenizer from a tokenizer, corpus or model directory.

    Args:
        folder: the directory.
        template: ``--chat-template``, which replaces the tokenizer's.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        raise InputError("no tokenizer here (tokenizer.json is missing)", where=str(folder))
    refuse_surrogates(folder)
    with library_reads("the tokenizer cannot be loaded", str(folder)):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    use_template(tokenizer, template)
    return tokenizer


def missing_location_tokens(tokenizer: Any, boxes: BoxWriter) -> list[str]:
    """The tokens of a format that a tokenizer does not have; none for formats in plain characters."""
    vocabulary = tokenizer.get_vocab() if boxes.tokens else {}
    return [token for token in boxes.tokens if token not in vocabulary]


def add_location_tokens(tokenizer: Any, boxes: BoxWriter) -> int:
    """Add the tokens of a format that a tokenizer does not have, and return how many.

    They are not special tokens: decoding keeps them, as they are part of the text.

    Args:
        tokenizer: transformers' or of the tokenizers library.
        boxes: the format.
    """
    from tokenizers import AddedToken

    missing = missing_location_tokens(tokenizer, boxes)
    if missing:
        tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in missing])
    return len(missing)


def check_location_tokens(folder: Path, boxes: BoxWriter, given: str) -> None:
    """Check that a model's tokenizer has the tokens of a format.

    Args:
        folder: of the model.
        boxes: the format.
        given: the model as the user named it, for the message.

    Raises:
        InputError: it lacks some; a location token would be split into its characters.
    """
    if not boxes.tokens:
        return
    tokenizer = load_tokenizer(folder)
    if missing := missing_location_tokens(tokenizer, boxes):
        if bins := _bins_of(tokenizer):
            hint = f"it has those of --box-bins {bins}"
        else:
            hint = (
                "priorkit tokenizer --location-tokens makes one that has them, priorkit align --box-format "
                "location-tokens adds them to a model; or choose another --box-format"
            )
        raise InputError(
            f"the tokenizer lacks {len(missing)} of the {len(boxes.tokens)} location tokens, such as {missing[0]}",
            where=given,
            hint=hint,
        )


def _bins_of(tokenizer: Any) -> int:
    """The ``--box-bins`` whose tokens a tokenizer has; 0 if there is none."""
    present = len(BoxWriter("location-tokens").tokens)
    present -= len(missing_location_tokens(tokenizer, BoxWriter("location-tokens")))
    bins = present if present == LOCATION_TOKENS else present - 1
    fits = bins > 1 and not missing_location_tokens(tokenizer, BoxWriter("location-tokens", bins=bins))
    return bins if fits else 0


def bos_ids(tokenizer: Any) -> list[int]:
    """The ids that a tokenizer puts before every text when it is called: BOS for Llama and Vicuna, often none."""
    plain, with_special = (
        tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True)
    )
    starts = range(len(with_special) - len(plain) + 1)
    return next((with_special[:start] for start in starts if with_special[start:][: len(plain)] == plain), [])


def prepend_bos(ids: list[int], bos: list[int]) -> list[int]:
    """The ids of a rendered conversation with :func:`bos_ids` before them, once: many templates write them."""
    return ids if ids[: len(bos)] == bos else [*bos, *ids]
