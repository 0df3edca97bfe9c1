"""Attention within documents on a GPU: kernels that take the documents' boundaries, and the choice among them.

All rows are concatenated into one sequence; no mask of time x time exists, and grouped keys and values are not
repeated. Which kernel a GPU, a precision and the installed libraries allow is found by trying each on a small
batch before the first step, forward and backward, against plain attention; the first that agrees is used and named.
"""

from __future__ import annotations

import inspect
import itertools
import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from priorkit.models.kernels.documents import Boundaries, document_boundaries, document_runs
from priorkit.models.kernels.plain_attention import attention_in_blocks

logger = logging.getLogger(__name__)


try:
    from torch.nn.attention.varlen import varlen_attn

    _VARLEN_OPTIONS = frozenset(inspect.signature(varlen_attn).parameters)
except ImportError:
    varlen_attn, _VARLEN_OPTIONS = None, frozenset[str]()


class BatchDocuments(NamedTuple):
    """The documents of a batch on the device.

    Attributes:
        starts: as :class:`priorkit.models.kernels.documents.Boundaries`.
        longest: likewise.
        numbers: document numbers int64 ``[batch, time]``; None where each row is one document.
    """

    starts: Tensor
    longest: int
    numbers: Tensor | None


class Heads(NamedTuple):
    """What a model asks of a kernel.

    Attributes:
        queries: number of query heads.
        keys: number of heads of keys and values, a divisor of it.
        width: of a head.
        window: how many tokens a token attends to, itself included; None for all of its document.
        dropout: of the attention weights.
        scale: of the scores.
    """

    queries: int
    keys: int
    width: int
    window: int | None = None
    dropout: float = 0.0
    scale: float = 1.0


Kernel = Callable[[Tensor, Tensor, Tensor, BatchDocuments, Heads], Tensor]
"""Queries ``[batch, heads, time, head_dim]`` and keys and values ``[batch, key_value_heads, time, head_dim]`` to
``[batch, time, heads, head_dim]``, causal within each document."""


def by_varlen(query: Tensor, key: Tensor, value: Tensor, layout: BatchDocuments, heads: Heads) -> Tensor:
    """torch's variable-length attention (FlashAttention, cuDNN), for half precision.

    Raises:
        NotImplementedError: this torch has none, or it has no windows or dropout as asked for.
    """
    if varlen_attn is None:
        raise NotImplementedError(f"torch {torch.__version__} does not have it")
    if heads.dropout:
        raise NotImplementedError("it has no dropout")
    options: dict[str, Any] = {"scale": heads.scale, "enable_gqa": heads.queries != heads.keys}
    if "window_size" in _VARLEN_OPTIONS:
        options["window_size"] = (-1 if heads.window is None else heads.window - 1, 0)
    elif heads.window is None:
        options["is_causal"] = True
    else:
        raise NotImplementedError("it has no sliding windows in this version of torch")
    if "scale" not in _VARLEN_OPTIONS:
        query = query * (heads.scale * heads.width**0.5)
    # FlashAttention groups heads by itself; later versions want to be asked for it.
    options = {name: option for name, option in options.items() if name in _VARLEN_OPTIONS}
    flat = [_concatenated(part) for part in (query, key, value)]
    function: Any = varlen_attn  # its arguments differ between versions of torch
    output = function(*flat, layout.starts, layout.starts, layout.longest, layout.longest, **options)
    return output.view(query.shape[0], query.shape[2], heads.queries, -1)


def _concatenated(part_BHTD: Tensor) -> Tensor:
    """``[batch * time, heads, head_dim]``."""
    return part_BHTD.transpose(1, 2).reshape(-1, part_BHTD.shape[1], part_BHTD.shape[3])


def by_xformers(query: Tensor, key: Tensor, value: Tensor, layout: BatchDocuments, heads: Heads) -> Tensor:
    """xformers' block-diagonal attention, in any precision, with dropout and windows.

    Raises:
        ImportError: xformers is not installed.
    """
    from xformers import ops  # pyright: ignore[reportMissingImports]

    bias = _block_diagonal(ops, layout.starts, heads.window)
    group = heads.queries // heads.keys
    batch, _, time, width = query.shape
    flat_query = query.transpose(1, 2).reshape(1, batch * time, heads.keys, group, width)
    flat = [part.transpose(1, 2).reshape(1, batch * time, heads.keys, 1, width) for part in (key, value)]
    if group == 1:
        flat_query, flat = flat_query[:, :, :, 0], [part[:, :, :, 0] for part in flat]
    else:
        flat = [part.expand(-1, -1, -1, group, -1) for part in flat]
    output = ops.memory_efficient_attention(
        flat_query, *flat, attn_bias=bias, p=heads.dropout, scale=heads.scale
    )
    return output.reshape(batch, time, heads.queries, -1)


_last_bias: list[tuple[Tensor, int | None, Any]] = []


def _block_diagonal(ops: Any, starts: Tensor, window: int | None) -> Any:
    """xformers' mask of a batch, made by its first layer.

    Its constructor reads lengths in main memory, so this is the one read of a micro-batch; torch's kernel needs none.
    """
    if _last_bias and _last_bias[0][0] is starts and _last_bias[0][1] == window:
        return _last_bias[0][2]
    places: list[int] = starts.tolist()
    lengths = [stop - start for start, stop in itertools.pairwise(places) if stop > start]
    bias = ops.fmha.attn_bias.BlockDiagonalCausalMask.from_seqlens(lengths)
    bias = bias if window is None else bias.make_local_attention(window)
    _last_bias[:] = [(starts, window, bias)]
    return bias


FLEX_BLOCK = 128
"""Queries and keys of a block of torch's flex attention."""


def by_flex(query: Tensor, key: Tensor, value: Tensor, layout: BatchDocuments, heads: Heads) -> Tensor:
    """torch's flex attention, compiled, in any precision; blocks between documents are skipped.

    Raises:
        NotImplementedError: dropout is asked for.
    """
    if heads.dropout:
        raise NotImplementedError("it has no dropout")
    numbers = layout.numbers
    if numbers is None:
        numbers = torch.zeros(query.shape[0], query.shape[2], dtype=torch.int64, device=query.device)
    mask = _flex_mask(numbers, heads.window)
    gqa = heads.queries != heads.keys
    attend = _flex(torch.compiler.is_compiling() or query.device.type == "cpu")
    output = attend(query, key, value, block_mask=mask, scale=heads.scale, enable_gqa=gqa)
    return output.transpose(1, 2)


@lru_cache(maxsize=2)
def _flex(plain: bool) -> Callable[..., Any]:
    """Flex attention; compiled unless it is part of what is compiled already."""
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention if plain else torch.compile(flex_attention)


_last_mask: list[tuple[Tensor, int | None, Any]] = []


def _flex_mask(numbers: Tensor, window: int | None) -> Any:
    """The block mask of a batch, made by its first layer; while compiling the compiler finds it once."""
    if torch.compiler.is_compiling():
        return flex_mask(numbers, window)
    if not (_last_mask and _last_mask[0][0] is numbers and _last_mask[0][1] == window):
        _last_mask[:] = [(numbers, window, flex_mask(numbers, window))]
    return _last_mask[0][2]


def flex_mask(document_ids_BT: Tensor, window: int | None) -> Any:
    """A flex block mask: causal, within documents, within the window; made from blocks, not from pairs of tokens.

    Args:
        document_ids_BT: int64 ``[batch, time]``.
        window: how many tokens a token attends to, itself included; None for all.
    """
    from torch.nn.attention.flex_attention import BlockMask

    runs = document_runs(document_ids_BT)
    batch, time = runs.shape
    blocks = -(-time // FLEX_BLOCK)
    padded = torch.nn.functional.pad(runs, (0, blocks * FLEX_BLOCK - time), mode="replicate")
    grouped = padded.view(batch, blocks, FLEX_BLOCK)
    first, last = grouped[:, :, 0], grouped[:, :, -1]
    number = torch.arange(blocks, device=runs.device)
    # Runs never decrease, so blocks share a document where the earlier one's last is the later one's first.
    seen = (number[:, None] >= number) & (last[:, None, :] >= first[:, :, None])
    if window is not None:
        seen = seen & ((number[:, None] - number - 1) * FLEX_BLOCK + 1 < window)
    counts = seen.sum(-1, dtype=torch.int32)[:, None]
    order = seen.int().argsort(dim=-1, descending=True, stable=True).int()[:, None]

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        inside = (query >= key) & (runs[row, query] == runs[row, key])
        return inside if window is None else inside & (query - key < window)

    return BlockMask.from_kv_blocks(
        counts, order, BLOCK_SIZE=FLEX_BLOCK, mask_mod=visible, seq_lengths=(time, time)
    )


KERNELS: dict[str, Kernel] = {
    "torch's variable-length attention": by_varlen,
    "xformers' block-diagonal attention": by_xformers,
    "torch's flex attention": by_flex,
}
"""In the order in which they are tried."""

PLAIN = "plain attention in blocks"

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest difference from plain attention in fp32 that a kernel may have, of values near 1."""


def choose_kernel(
    heads: Sequence[Heads], dtype: torch.dtype, device: torch.device, kernels: Sequence[str] = tuple(KERNELS)
) -> str:
    """The first kernel that computes what plain attention does, for all kinds of layers of a model.

    Args:
        heads: the kinds of layers.
        dtype: of the products.
        device: a GPU.
        kernels: names in :data:`KERNELS`.

    Returns:
        A name in :data:`KERNELS`, or :data:`PLAIN` where none does.
    """
    for name in kernels:
        reason = next(
            filter(None, (_reason_against(KERNELS[name], kind, dtype, device) for kind in heads)), ""
        )
        if not reason:
            return name
        logger.debug(f"{name} is not used: {reason}")
    return PLAIN


TRIED_LENGTHS = (5, 130, 57, 64)
"""Documents on which kernels are tried, two rows of 128 of them after cutting at the rows."""


def _reason_against(kernel: Kernel, heads: Heads, dtype: torch.dtype, device: torch.device) -> str:
    """Why a kernel cannot be used; empty where it can."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.repeat_interleave(torch.arange(len(TRIED_LENGTHS)), torch.tensor(TRIED_LENGTHS)).view(
        2, -1
    )
    layout = on_device(document_boundaries(numbers), numbers, device)
    shapes = [(2, count, 128, heads.width) for count in (heads.queries, heads.keys, heads.keys)]
    parts = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    results: list[list[Tensor]] = []
    try:
        if heads.dropout:  # it is random: that the kernel takes it is all that can be tried
            kernel(parts[0], parts[1], parts[2], layout, heads)
        for attend, kind in ((kernel, dtype), (plain_kernel, torch.float32)):
            query, key, value = (part.detach().to(kind, copy=True).requires_grad_() for part in parts)
            output = attend(query, key, value, layout, heads._replace(dropout=0.0))
            weights = torch.linspace(-1, 1, output.numel(), device=device).view(output.shape)
            (output.float() * weights).sum().backward()
            results.append([output, *(part.grad for part in (query, key, value) if part.grad is not None)])
    except (
        RuntimeError,
        NotImplementedError,
        ImportError,
        OSError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    for found, expected in zip(*results, strict=True):
        apart = (found.detach().float() - expected.detach()).abs().max()
        difference = float(apart / expected.detach().abs().max())
        if not difference <= TOLERANCE[dtype]:
            return f"it differs from plain attention by {difference:.3g}"
    return ""


def plain_kernel(query: Tensor, key: Tensor, value: Tensor, layout: BatchDocuments, heads: Heads) -> Tensor:
    """Plain attention in blocks of queries, in any precision: memory grows with the square of the length."""
    group = heads.queries // heads.keys
    if group > 1:
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    numbers = None if layout.numbers is None else layout.numbers[:, None, None, :]
    output = attention_in_blocks(query, key, value, numbers, heads.scale, heads.dropout, True, heads.window)
    return output.transpose(1, 2)


def on_device(boundaries: Boundaries, numbers: Tensor | None, device: torch.device) -> BatchDocuments:
    """The documents of a batch, moved to the device."""
    moved = None if numbers is None else numbers.to(device)
    return BatchDocuments(boundaries["starts"].to(device), boundaries["longest"], moved)


def rows_as_documents(batch: int, time: int, device: torch.device) -> BatchDocuments:
    """Every row as one document."""
    starts = torch.arange(0, batch * time + 1, time, dtype=torch.int32, device=device)
    return BatchDocuments(starts, time, None)
