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

from priorkit.models.kernels.document_groups import attention_by_document
from priorkit.models.kernels.document_kernels import (
    KERNELS,
    PLAIN,
    BatchDocuments,
    Heads,
    choose_kernel,
    plain_kernel,
    rows_as_documents,
)
from priorkit.models.kernels.documents import PACKED
from priorkit.models.kernels.plain_attention import attention_in_blocks

logger = logging.getLogger(__name__)


_chosen: dict[torch.dtype, str] = {}
"""The kernel of this run for attention within documents on a GPU, by the dtype of its products."""


def choose_attention(model: Any, device_type: str, precision: str = "fp32") -> str:
    """Set the attention implementation for training; it is not saved with the model.

    Decoders of the families in ``PACKED_MODEL_TYPES`` get ``priorkit_packed``; others, and image towers, get
    plain softmax on CPUs and, on GPUs, torch's fused attention if they can use it. torch's fused attention has a slow backward
    pass on CPUs: on a ViT of width 128 with 37 tokens and 128 images it takes 134 of 229 ms of a step;
    with plain softmax the step takes 99 ms (in bf16; with emulated bf16 no gain was measured).

    Args:
        model: a transformers model; in a composite one (``text_config``) each part gets its own.
        device_type: ``cpu`` or ``cuda``; a GPU has the model already.
        precision: ``fp32`` or ``bf16``; decides a GPU's kernel for packed documents.

    Returns:
        The decoder's implementation.
    """
    _register()
    without_fused = {
        id(part.config) for part in model.modules() if getattr(part, "_supports_sdpa", None) is False
    }

    def plain(config: Any) -> str:
        return "eager" if device_type == "cpu" or id(config) in without_fused else "sdpa"

    text = model.config.get_text_config()
    decoder = PACKED if text.model_type in PACKED_MODEL_TYPES else plain(text)
    if text is model.config:
        model.set_attn_implementation(decoder)
    else:
        parts = {name: plain(getattr(model.config, name)) for name in model.config.sub_configs}
        model.set_attn_implementation({"": plain(model.config), **parts, "text_config": decoder})
    if decoder == PACKED and device_type == "cuda":
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        _chosen[dtype] = choose_kernel(layer_heads(text), dtype, next(model.parameters()).device)
        logger.info(f"attention within documents: {_chosen[dtype]}, {precision}")
    return text._attn_implementation


def layer_heads(config: Any) -> list[Heads]:
    """The kinds of attention layers of a language model, by its configuration."""
    queries = int(config.num_attention_heads)
    keys = int(getattr(config, "num_key_value_heads", None) or queries)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // queries)
    dropout = float(getattr(config, "attention_dropout", None) or getattr(config, "attn_pdrop", None) or 0.0)
    window = getattr(config, "sliding_window", None)
    windows = [None, int(window)] if window else [None]
    return [Heads(queries, keys, width, size, dropout, width**-0.5) for size in windows]


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
        **kwargs: ``is_causal``, and the documents' boundaries that a GPU's kernels need, see
            :func:`priorkit.models.kernels.documents.boundary_options`.

    Returns:
        ``[batch, time, heads, head_dim]``, and None instead of the weights, which are not kept.
    """
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # Under autocast rotary embeddings leave queries and keys in fp32 while values are in bf16.
    query, key = query.to(value.dtype), key.to(value.dtype)
    window = sliding_window if sliding_window and sliding_window < key.shape[2] else None
    heads = Heads(query.shape[1], key.shape[1], query.shape[3], window, dropout, scale)
    if query.device.type == "cuda" and causal:
        return _on_gpu(query, key, value, attention_mask, heads, kwargs).contiguous(), None
    key, value = _repeated(key, heads), _repeated(value, heads)
    if (
        attention_mask is not None
        and causal
        and query.device.type == "cpu"
        and not torch.compiler.is_compiling()
    ):

        def within(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            shorter = window if window and window < key.shape[2] else None
            return _without_documents(query, key, value, scale, dropout, True, shorter)

        output = attention_by_document(query, key, value, attention_mask, within)
    elif attention_mask is None:
        output = _without_documents(query, key, value, scale, dropout, causal, window)
    else:
        output = attention_in_blocks(query, key, value, attention_mask, scale, dropout, causal, window)
    return output.transpose(1, 2).contiguous(), None


def _without_documents(
    query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float, causal: bool, window: int | None
) -> Tensor:
    """Attention of whole rows by the faster kernel; ``[batch, heads, time, head_dim]`` all."""
    if window is None and _fused_is_faster(query):
        return nn.functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=causal and query.shape[2] > 1, scale=scale
        )
    return attention_in_blocks(query, key, value, None, scale, dropout, causal, window)


def _fused_is_faster(query: Tensor) -> bool:
    """Whether torch's fused attention is the fastest where no mask is needed: on CPUs in fp32.

    There forward and backward take 10 against 15 ms at 4 rows of 256 tokens with 4
    heads of 32 (one thread of a processor without AVX512), at longer rows the same time and less memory; in
    bf16 its backward pass is the slower one.
    """
    return query.device.type != "cpu" or query.dtype == torch.float32


def _on_gpu(
    query: Tensor, key: Tensor, value: Tensor, documents: Tensor | None, heads: Heads, options: dict[str, Any]
) -> Tensor:
    """Causal attention within documents or windows by the kernel that was chosen; ``[batch, time, heads, head_dim]``.

    Without either it is torch's fused attention. Numbers without boundaries, as transformers makes them of a padding
    mask, have plain attention.
    """
    if documents is None and heads.window is None:
        if query.dtype == torch.float32:  # in fp32 torch's kernels have no grouped heads
            key, value = _repeated(key, heads), _repeated(value, heads)
        output = nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            dropout_p=heads.dropout,
            is_causal=query.shape[2] > 1,
            scale=heads.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return output.transpose(1, 2)
    numbers = None if documents is None else documents[:, 0, 0]
    kernel = KERNELS.get(_chosen.get(value.dtype, PLAIN), plain_kernel)
    if "document_starts" in options:
        layout = BatchDocuments(options["document_starts"], options["longest_document"], numbers)
    else:
        layout = rows_as_documents(query.shape[0], query.shape[2], query.device)._replace(numbers=numbers)
        kernel = kernel if numbers is None else plain_kernel
    return kernel(query, key, value, layout, heads)


def _repeated(part: Tensor, heads: Heads) -> Tensor:
    groups = heads.queries // heads.keys
    return part.repeat_interleave(groups, dim=1) if groups > 1 else part


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
