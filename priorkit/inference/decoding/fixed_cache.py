"""Decoding on a GPU with a cache of fixed size, whose steps are recorded once and replayed as a CUDA graph.

A step of decoding launches hundreds of small kernels, and launching them from Python takes longer than computing
them. With keys, values, tokens and positions in tensors that stay where they are, a step is the same work every time:
it is recorded, and replayed in one call. Rows that end leave their place to others; a free place computes along.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from priorkit.core.errors import is_out_of_memory
from priorkit.inference.decoding.growing_cache import GrowingBatch
from priorkit.inference.prefill import PrefillState, can_join, short_prompts, takes_own_masks

if TYPE_CHECKING:
    from priorkit.inference.model_adapter import ModelAdapter

logger = logging.getLogger(__name__)

STEPS_BEFORE_RECORDING = 4
"""Recording costs as much as a few steps, which short answers do not repay; these steps also fill the caches (cast
weights, workspaces) that a recording must find as they stay."""

ROOM = 128
"""Positions of the cache are a multiple of it, and it begins with room for so many tokens; a longer answer has it made
larger by half, and recorded again."""

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far logits with both caches may differ, relative to the largest one."""


class _FixedLayer(CacheLayerMixin):
    """Keys and values of one layer, ``[rows, positions, heads, head_dim]`` in memory.

    Args:
        keys, values: what transformers' layer holds, ``[rows, heads, time, head_dim]``; for shapes and dtypes.
        places: int64 ``[rows]``, where each row's next position is in the first two dimensions taken as one; shared
            by all layers and changed in place.
        rows, positions: sizes.
    """

    is_compileable = True
    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor, places: Tensor, rows: int, positions: int) -> None:
        super().__init__()
        self._places = places
        self.key_rows, self.value_rows = (
            part.new_zeros(rows, positions, part.shape[1], part.shape[3]) for part in (keys, values)
        )
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the tensors exist."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one position per row and return all, ``[rows, heads, positions, head_dim]``."""
        for store, new in ((self.key_rows, key_states), (self.value_rows, value_states)):
            store.flatten(0, 1).index_copy_(0, self._places, new[:, :, 0].to(store.dtype))
        return self.rows

    @property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Keys and values, ``[rows, heads, positions, head_dim]``."""
        return self.key_rows.transpose(1, 2), self.value_rows.transpose(1, 2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Positions and offset; masks are given."""
        return self.key_rows.shape[1], 0

    def get_seq_length(self) -> int:
        """0: positions are given with every step."""
        return 0

    def get_max_length(self) -> int:
        """The number of positions."""
        return self.key_rows.shape[1]


class FixedBatch:
    """Rows that have places in a cache of fixed size.

    Args:
        model: the model; ``can_fix`` holds for it.
        filled: the first rows after their prompts.
        rows: places for rows.
        new_tokens: most tokens that are fed to a row.
        graphs: whether steps are recorded; needs a GPU.
    """

    takes_rows = True

    def __init__(
        self, model: ModelAdapter, filled: PrefillState, rows: int, new_tokens: int, graphs: bool = True
    ) -> None:
        self._model, self._rows, self._new_tokens, self._graphs = model, rows, new_tokens, graphs
        self._slots: list[int] = []
        self._lengths = [0] * rows
        device = filled.logits.device
        self._tokens = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._positions = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._next = torch.zeros(rows, dtype=torch.int64, device=device)
        self._places = torch.zeros(rows, dtype=torch.int64, device=device)
        self._layers: list[_FixedLayer] = []
        self._graph: Any = None
        self._steps = 0
        self.add(filled)

    def add(self, fresh: PrefillState) -> None:
        """Add rows after the others, in the first free places."""
        length = fresh.mask.shape[1]
        needed = length + min(self._new_tokens, ROOM)
        if not self._layers or needed > self._size:
            self._make_room(needed, [(layer.keys, layer.values) for layer in fresh.cache.layers])
        free = [place for place in range(self._rows) if place not in self._slots][: len(fresh.mask)]
        self._slots += free
        for slot in free:
            self._lengths[slot] = length
        slots = torch.tensor(free).to(self._tokens.device)
        mask = fresh.mask.to(slots.device)
        for layer, other in zip(self._layers, fresh.cache.layers, strict=True):
            for store, given in ((layer.key_rows, other.keys), (layer.value_rows, other.values)):
                store[:, :length].index_copy_(0, slots, given.transpose(1, 2))
        visible = mask.new_zeros(len(free), self._size, dtype=torch.bool)
        visible[:, :length] = mask.bool()
        self._visible.index_copy_(0, slots, visible)
        self._next.index_fill_(0, slots, length)
        self._positions.index_copy_(0, slots, mask.sum(1, keepdim=True))
        self._tokens.index_copy_(0, slots, fresh.logits.argmax(-1, keepdim=True))

    @property
    def _size(self) -> int:
        """Positions of the cache."""
        return self._visible.shape[1]

    def _make_room(self, positions: int, like: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Make the tensors that have positions, and copy what they had.

        Args:
            positions: how many are needed.
            like: keys and values of each layer, ``[rows, heads, time, head_dim]``.
        """
        positions = -(-positions // ROOM) * ROOM
        device, before = self._tokens.device, self._layers
        visible = torch.zeros(self._rows, positions, dtype=torch.bool, device=device)
        layers = [_FixedLayer(keys, values, self._places, self._rows, positions) for keys, values in like]
        for layer, old in zip(layers, before, strict=bool(before)):
            layer.key_rows[:, : self._size] = old.key_rows
            layer.value_rows[:, : self._size] = old.value_rows
        if before:
            visible[:, : self._size] = self._visible
        self._first = torch.arange(self._rows, device=device) * positions
        self._visible, self._layers, self._cache = visible, layers, Cache(layers=list(layers))
        self._graph = None

    def next_tokens(self) -> list[int]:
        """Each row's most probable next token; waits for the device."""
        tokens = self._tokens[:, 0].tolist()
        return [tokens[slot] for slot in self._slots]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows: their places are free."""
        self._slots = [self._slots[row] for row in rows]

    def step(self, tokens: Sequence[int]) -> None:
        """Feed each row the token that :meth:`next_tokens` gave it, which is on the device already."""
        longest = max(self._lengths[slot] for slot in self._slots)
        if longest >= self._size:
            self._make_room(longest + max(ROOM, longest // 2), [layer.rows for layer in self._layers])
        for slot in self._slots:
            self._lengths[slot] += 1
        self._steps += 1
        if self._graph is None and self._graphs and self._steps > STEPS_BEFORE_RECORDING:
            self._graph = self._record()
            self._graphs = self._graph is not None
        if self._graph is None:
            self.advance()
        else:
            self._graph.replay()

    def advance(self) -> Tensor:
        """One step of all places, free ones too; logits ``[rows, vocabulary]``."""
        with _any_order():
            # Free places go on counting; they write where they do no harm, within the cache and learned positions.
            torch.add(self._first, self._next.clamp(max=self._size - 1), out=self._places)
            self._visible.view(-1).index_fill_(0, self._places, True)
            logits, _ = self._model.forward(
                self._tokens,
                self._visible[:, None, None],
                self._positions.clamp(max=self._model.max_length - 1),
                keep=1,
                cache=self._cache,
                use_cache=True,
            )
            self._tokens.copy_(logits.argmax(-1))
            self._next.add_(1)
            self._positions.add_(1)
        return logits[:, -1]

    def _record(self) -> Any:
        """The step as a CUDA graph; None where it cannot be recorded."""
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.advance()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            logger.info(f"  generation without CUDA graphs: {str(error).splitlines()[0][:120]}")
            return None
        return graph


@contextmanager
def _any_order() -> Generator[None]:
    """Within the context torch may write to indices in any order: here each is written once, so results are the same.

    Its deterministic writes sort the indices first, in every layer.
    """
    enabled, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)


def can_fix(model: ModelAdapter) -> bool:
    """Whether a model gives the same logits with a cache of fixed size, found out on two short prompts.

    It must take a mask of its own for every row, and keep all keys and values as they come: no sliding windows, no
    positions computed from the mask, no state other than the cache.
    """

    def same_logits() -> bool:
        filled = short_prompts(model)
        if not can_join(filled.cache):
            return False
        fixed = FixedBatch(model, filled, rows=3, new_tokens=1, graphs=False)
        growing = GrowingBatch(model, filled)
        growing.step(growing.next_tokens())
        expected, found = growing.logits.float(), fixed.advance()[:2].float()
        tolerance = TOLERANCE.get(growing.logits.dtype, 1e-3)
        return bool((expected - found).abs().max() <= tolerance * expected.abs().max())

    return takes_own_masks(model, same_logits)
