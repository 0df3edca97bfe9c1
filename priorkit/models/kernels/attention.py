"""Attention for training: causal in blocks, kept within documents, registered with transformers.

The implementation ``priorkit_packed`` takes document numbers instead of a mask: an int64 tensor
``[batch, 1, 1, time]`` that transformers passes unchanged to every layer. A token attends only to the tokens
of its own document. Without numbers it is plain causal attention.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


PACKED = "priorkit_packed"
BLOCK_ROWS = 256
"""Queries of one block. Scores of keys that come after a block are never computed: at a length of two
blocks a quarter of all products is saved, at many blocks half."""

PACKED_BLOCK_ROWS = 128
"""Queries of one block where documents are packed: smaller blocks skip more keys of other documents."""


def choose_attention(model: Any, device_type: str) -> str:
    """Set the attention implementation for training; it is not saved with the model.

    Decoders of the families in ``PACKED_MODEL_TYPES`` get ``priorkit_packed``; others, and image towers, get
    plain softmax on CPUs and torch's fused attention on GPUs. torch's fused attention has a slow backward
    pass on CPUs: on a ViT of width 128 with 37 tokens and 128 images it takes 134 of 229 ms of a step;
    with plain softmax the step takes 99 ms (in bf16; with emulated bf16 no gain was measured).

    Args:
        model: a transformers model; in a composite one (``text_config``) each part gets its own.
        device_type: ``cpu`` or ``cuda``.

    Returns:
        The decoder's implementation.
    """
    _register()
    plain = "eager" if device_type == "cpu" else "sdpa"
    text = model.config.get_text_config()
    decoder = PACKED if text.model_type in PACKED_MODEL_TYPES else plain
    if text is model.config:
        model.set_attn_implementation(decoder)
    else:
        parts = dict.fromkeys(model.config.sub_configs, plain)
        model.set_attn_implementation({"": plain, **parts, "text_config": decoder})
    return text._attn_implementation


PACKED_MODEL_TYPES = frozenset(
    {
        "gemma",
        "gpt2",
        "gpt_neox",
        "granite",
        "llama",
        "mistral",
        "olmo2",
        "phi",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
    }
)
"""Model types whose attention scores are only scaled inner products, each tested against plain softmax
attention. Others have soft caps, sinks or biases, and keep transformers' attention."""


def document_mask(document_ids_BT: Tensor, implementation: str, dtype: torch.dtype) -> Tensor:
    """What to pass as ``attention_mask`` so that attention stays within documents.

    Args:
        document_ids_BT: int64 ``[batch, time]``; equal numbers are one document, -1 is padding.
        implementation: the decoder's attention implementation.
        dtype: the model's, for additive masks.

    Returns:
        ``[batch, 1, 1, time]`` document numbers for ``priorkit_packed``, else ``[batch, 1, time, time]``:
        bool for ``sdpa``, additive otherwise.
    """
    if implementation == PACKED:
        return document_ids_BT[:, None, None, :]
    length = document_ids_BT.shape[1]
    seen = document_ids_BT[:, :, None] == document_ids_BT[:, None, :]
    seen = (seen & torch.ones(length, length, dtype=torch.bool, device=seen.device).tril())[:, None]
    if implementation == "sdpa":
        return seen
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def document_positions(document_ids_BT: Tensor) -> Tensor:
    """Positions that start at 0 in every document.

    Args:
        document_ids_BT: int64 ``[batch, time]``; a document's tokens are contiguous.

    Returns:
        int64 ``[batch, time]``.
    """
    places = torch.arange(document_ids_BT.shape[1], device=document_ids_BT.device).expand_as(document_ids_BT)
    begins = torch.ones_like(document_ids_BT, dtype=torch.bool)
    begins[:, 1:] = document_ids_BT[:, 1:] != document_ids_BT[:, :-1]
    return places - (places * begins).cummax(dim=1).values


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within documents, as transformers calls it.

    Args:
        module: the attention layer; ``is_causal`` says whether later tokens are masked.
        query: ``[batch, heads, time, head_dim]``.
        key, value: ``[batch, key_value_heads, time, head_dim]``.
        attention_mask: document numbers int64 ``[batch, 1, 1, time]``, or None.
        scaling: of the scores; ``head_dim ** -0.5`` where None.
        dropout: of the attention weights.
        sliding_window: how many tokens a token attends to, itself included.

    Returns:
        ``[batch, time, heads, head_dim]``, and None instead of the weights, which are not kept.
    """
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    # Under autocast rotary embeddings leave queries and keys in fp32 while values are in bf16.
    query, key = query.to(value.dtype), key.to(value.dtype)
    window = sliding_window if sliding_window and sliding_window < key.shape[2] else None
    if attention_mask is None and window is None and _fused_is_faster(query):
        output = nn.functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=causal and query.shape[2] > 1, scale=scale
        )
    elif query.device.type == "cuda":
        output = _on_gpu(query, key, value, attention_mask, scale, dropout, causal, window)
    else:
        output = _in_blocks(query, key, value, attention_mask, scale, dropout, causal, window)
    return output.transpose(1, 2).contiguous(), None


def _fused_is_faster(query: Tensor) -> bool:
    """Whether torch's fused attention is the fastest where no mask is needed: always on GPUs.

    On CPUs only in fp32, where forward and backward take 10 against 15 ms at 4 rows of 256 tokens with 4
    heads of 32 (one thread of a processor without AVX512), at longer rows the same time and less memory; in
    bf16 its backward pass is the slower one.
    """
    return query.device.type == "cuda" or query.dtype == torch.float32


def _in_blocks(
    query_BHTD: Tensor,
    key_BHTD: Tensor,
    value_BHTD: Tensor,
    documents: Tensor | None,
    scale: float,
    dropout: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """Plain softmax attention, a block of queries at a time."""
    length = query_BHTD.shape[2]
    query_BHTD = query_BHTD * scale
    outputs: list[Tensor] = []
    first_visible = _first_visible(documents) if documents is not None and causal else None
    rows = BLOCK_ROWS if first_visible is None else PACKED_BLOCK_ROWS
    for first in range(0, length, rows):
        last = min(first + rows, length)
        stop = last if causal else length
        start = max(0, first - window + 1) if window and causal else 0
        if first_visible is not None:
            start = max(start, first_visible[first])
        scores = query_BHTD[:, :, first:last] @ key_BHTD[:, :, start:stop].transpose(-2, -1)
        hidden = _masked(first, last, start, stop, documents, causal, window, scores.device)
        if hidden is not None:
            # The lowest finite number instead of -inf: torch's gradient of a softmax over -inf is 0 * inf.
            scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(value_BHTD.dtype)
        weights = nn.functional.dropout(weights, p=dropout, training=dropout > 0)
        outputs.append(weights @ value_BHTD[:, :, start:stop])
    return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]


def _first_visible(documents: Tensor) -> list[int] | None:
    """For each position the first key that a token of any row may attend to; None while compiling.

    Keys before it are masked in every row, so their scores are never computed. Used only on CPUs, where
    reading it costs no synchronization; while compiling it would break the graph.
    """
    if torch.compiler.is_compiling():
        return None
    ids = documents[:, 0, 0]
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    fresh = torch.ones_like(ids, dtype=torch.bool)
    fresh[:, 1:] = ids[:, 1:] != ids[:, :-1]
    return (places * fresh).cummax(dim=1).values.amin(dim=0).tolist()


def _masked(
    first: int,
    last: int,
    start: int,
    stop: int,
    documents: Tensor | None,
    causal: bool,
    window: int | None,
    device: torch.device,
) -> Tensor | None:
    """Mask of the keys ``start`` to ``stop`` that the queries ``first`` to ``last`` must not attend to."""
    hidden: Tensor | None = None
    if causal:
        rows = torch.arange(first, last, device=device)[:, None]
        columns = torch.arange(start, stop, device=device)[None, :]
        hidden = columns > rows
        if window:
            hidden = hidden | (columns <= rows - window)
    if documents is not None:
        others = documents[:, :, 0, first:last, None] != documents[:, :, 0, None, start:stop]
        hidden = others if hidden is None else others | hidden
    return hidden


def _on_gpu(
    query_BHTD: Tensor,
    key_BHTD: Tensor,
    value_BHTD: Tensor,
    documents: Tensor | None,
    scale: float,
    dropout: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """torch's masked attention; xformers' block-diagonal kernel where documents are packed and it is there."""
    length = query_BHTD.shape[2]
    kernel = _xformers() if documents is not None and causal and window is None else None
    if kernel is not None:
        return _by_xformers(kernel, query_BHTD, key_BHTD, value_BHTD, documents, scale, dropout)
    hidden = _masked(0, length, 0, length, documents, causal, window, query_BHTD.device)
    seen = None if hidden is None else ~hidden
    return nn.functional.scaled_dot_product_attention(
        query_BHTD, key_BHTD, value_BHTD, attn_mask=seen, dropout_p=dropout, scale=scale
    )


def _by_xformers(
    ops: Any, query: Tensor, key: Tensor, value: Tensor, documents: Any, scale: float, dropout: float
) -> Tensor:
    """All rows concatenated into one, with a causal block for each document."""
    batch, heads, length, width = query.shape
    ids = documents[:, 0, 0]
    begins = torch.ones_like(ids, dtype=torch.bool)
    begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
    starts = begins.reshape(-1).nonzero().squeeze(-1).tolist()
    lengths = [stop - start for start, stop in zip(starts, [*starts[1:], batch * length], strict=True)]
    bias = ops.fmha.attn_bias.BlockDiagonalCausalMask.from_seqlens(lengths)
    flat = [part.transpose(1, 2).reshape(1, batch * length, heads, width) for part in (query, key, value)]
    output = ops.memory_efficient_attention(*flat, attn_bias=bias, p=dropout, scale=scale)
    return output.reshape(batch, length, heads, width).transpose(1, 2)


_loaded: list[Any] = []


def _xformers() -> Any:
    """``xformers.ops``, or None with one note where it is not installed or cannot be loaded."""
    if not _loaded:
        try:
            from xformers import ops  # pyright: ignore[reportMissingImports]

            _loaded.append(ops)
        except (ImportError, OSError) as error:
            logger.info(f"xformers is not used ({error}); packed attention uses torch's masked attention")
            _loaded.append(None)
    return _loaded[0]


def _documents_of_padding(
    batch_size: int, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **_: Any
) -> Tensor | None:
    """Document numbers for a padding mask ``[batch, time]`` as transformers builds masks: 0, and -1 for padding."""
    if q_length != kv_length:
        raise NotImplementedError(f"{PACKED} is for training and supports no cache")
    if attention_mask is None:
        return None
    return (attention_mask.long() - 1)[:, None, None, :]


def _register() -> None:
    """Register the implementation with transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _documents_of_padding)
