"""The tokenizer of an encoder trained from scratch: CLIP's kind, trained on the captions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from priorkit.models.language.tokenizer import train_on_words, warn_of_small_vocabulary

BOS, EOS, PAD = "<|startoftext|>", "<|endoftext|>", "<|pad|>"


def train_caption_tokenizer(texts: Iterable[str], vocab_size: int, length: int) -> Any:
    """Train a lower-casing byte-level BPE tokenizer with start and end tokens, like CLIP's.

    Args:
        texts: the captions.
        vocab_size: size of the vocabulary.
        length: the longest text in tokens.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    # Padding first: its id must not be 2, which CLIP's text tower treats as a legacy end token.
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, "<|unused|>", EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    train_on_words(tokenizer, texts, trainer)
    warn_of_small_vocabulary(tokenizer.get_vocab_size(), vocab_size)
    begin, end = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, begin), (EOS, end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=EOS,
        model_max_length=length,
    )
