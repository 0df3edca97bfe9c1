"""Hidden states of a language model, one vector per text and layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from priorkit.core.errors import InputError

TextPooling = Literal["mean", "last"]
"""The mean over a text's tokens, or its last token."""


@torch.no_grad()
def pooled_hidden_states(
    llm: Any,
    tokenizer: Any,
    texts: Sequence[str],
    layers: Sequence[int],
    pooling: TextPooling,
    batch_size: int,
    max_length: int,
) -> Iterator[Tensor]:
    """Yield pooled hidden states of batches of texts: fp32 ``[batch, layers, width]`` on the CPU.

    Args:
        llm: a causal LM; its LM head is not used.
        tokenizer: its tokenizer.
        texts: one per item.
        layers: indices of hidden states; 0 is the embeddings.
        pooling: over a text's tokens.
        batch_size: texts per forward pass.
        max_length: longer texts are truncated to this many tokens.

    Raises:
        InputError: a text has no tokens.
    """
    device = next(llm.parameters()).device
    decoder = llm.get_decoder()
    for start in range(0, len(texts), batch_size):
        batch = list(texts[start : start + batch_size])
        ids = [tokens[:max_length] for tokens in tokenizer(batch)["input_ids"]]
        if not all(ids):
            empty = start + next(number for number, tokens in enumerate(ids) if not tokens)
            raise InputError("the text has no tokens", where=f"pair {empty + 1}")
        longest = max(map(len, ids))
        lengths = torch.tensor([len(tokens) for tokens in ids], device=device)
        mask = torch.arange(longest, device=device)[None] < lengths[:, None]
        # Padding follows the text, so that a causal model does not attend to it even without the mask.
        padded = torch.tensor(
            [tokens + [tokens[-1]] * (longest - len(tokens)) for tokens in ids], device=device
        )
        states = decoder(
            input_ids=padded, attention_mask=mask.long(), output_hidden_states=True, use_cache=False
        ).hidden_states
        yield torch.stack([_pool(states[layer].float(), mask, lengths, pooling) for layer in layers], 1).cpu()


def _pool(state: Tensor, mask: Tensor, lengths: Tensor, pooling: TextPooling) -> Tensor:
    """One vector per text, ``[batch, width]``, from states ``[batch, time, width]``."""
    if pooling == "last":
        return state[torch.arange(len(state), device=state.device), lengths - 1]
    return (state * mask[..., None]).sum(1) / lengths[:, None]
