"""Greedy generation in batches: padded on the left, sorted by length, finished rows leave the batch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch

from priorkit.core.console import console
from priorkit.evals.likelihood import pad_left

if TYPE_CHECKING:
    from priorkit.data.images import ImageRef
    from priorkit.evals.subject import Subject


@torch.no_grad()
def generate(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    images: Sequence[ImageRef | None],
    *,
    max_new_tokens: int,
    stop: Collection[int],
    batch_size: int,
    title: str,
) -> list[list[int]]:
    """Answer prompts by the most probable token, one after the other.

    A row leaves the batch once it has ended. Every row sees itself alone, so that neither batch size nor
    order change an answer but for the rounding of matrix products.

    Args:
        subject: the model.
        prompts: token ids, each shorter than the model takes.
        images: one per prompt, or None.
        max_new_tokens: most tokens of an answer; fewer where the model's length is reached before.
        stop: tokens that end an answer; they are not part of it.
        batch_size: prompts at a time.
        title: of the progress.

    Returns:
        Token ids of each answer, in the order of the prompts.
    """
    order = sorted(range(len(prompts)), key=lambda place: (-len(prompts[place]), place))
    answers: list[list[int]] = [[] for _ in prompts]
    with console.progress(title, len(prompts), unit="items") as progress:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            rows = [prompts[place] for place in batch]
            room = [min(max_new_tokens, subject.max_length - len(row)) for row in rows]
            seen = [image for place in batch if (image := images[place]) is not None]
            for place, own in zip(batch, _batch(subject, rows, seen, room, stop), strict=True):
                answers[place] = own
            progress.advance(len(batch))
    return answers


def _batch(
    subject: Subject,
    rows: Sequence[Sequence[int]],
    images: Sequence[ImageRef],
    room: Sequence[int],
    stop: Collection[int],
) -> list[list[int]]:
    ids, mask, positions = pad_left(rows)
    logits, cache = subject.forward(ids, mask, positions, keep=1, images=images, use_cache=True)
    answers: list[list[int]] = [[] for _ in rows]
    alive = list(range(len(rows)))
    while True:
        tokens = logits[:, -1].float().argmax(-1).tolist()
        going: list[int] = []
        for place, (row, token) in enumerate(zip(alive, tokens, strict=True)):
            if token in stop:
                continue
            answers[row].append(token)
            if len(answers[row]) < room[row]:
                going.append(place)
        if not going:
            return answers
        if len(going) < len(alive):
            index = torch.tensor(going)
            cache.batch_select_indices(index.to(subject.device))
            mask = mask[index]
            alive = [alive[place] for place in going]
        fed = torch.tensor([[answers[row][-1]] for row in alive])
        positions = mask.sum(1, keepdim=True)
        mask = torch.cat([mask, torch.ones_like(fed)], dim=1)
        logits, cache = subject.forward(fed, mask, positions, keep=1, cache=cache, use_cache=True)
