"""Log-probabilities of continuations: each context passes the model once, whatever the number of options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from priorkit.core.console import console
from priorkit.evals.tokens import Ids, Request

if TYPE_CHECKING:
    from priorkit.data.images import ImageRef
    from priorkit.evals.subject import Subject

LOGIT_BYTES = 256 << 20
"""A batch is cut so that its logits take no more than this."""


@torch.no_grad()
def score_requests(
    subject: Subject,
    requests: Sequence[Request],
    images: Sequence[ImageRef | None],
    batch_size: int,
    title: str,
) -> list[tuple[float, ...]]:
    """Summed natural log-probabilities of all continuations of all requests.

    Requests are batched by length. Where all continuations of a batch are single tokens, one pass over
    the contexts answers all of them; otherwise the contexts' keys and values are kept and shared by their
    continuations. A request with one continuation is one pass over both.

    Args:
        subject: the model.
        requests: at least one.
        images: the image of each item, by the requests' item numbers.
        batch_size: contexts per pass.
        title: of the progress.

    Returns:
        For each request, one number per continuation.
    """
    found: dict[int, tuple[float, ...]] = {}
    with console.progress(title, len(requests), unit="requests") as progress:
        for batch in _batches(requests, batch_size, _vocabulary(subject)):
            own = [requests[place] for place in batch]
            seen = [image for request in own if (image := images[request.item]) is not None]
            single = all(len(request.continuations) == 1 for request in own)
            scores = _whole(subject, own, seen) if single else _shared(subject, own, seen)
            found.update(zip(batch, scores, strict=True))
            progress.advance(len(batch))
    return [found[place] for place in range(len(requests))]


def _vocabulary(subject: Subject) -> int:
    return int(subject.model.get_output_embeddings().weight.shape[0])


def _batches(requests: Sequence[Request], batch_size: int, vocabulary: int) -> Iterator[list[int]]:
    """Numbers of requests, longest first, those with one continuation apart from those with several."""
    order = sorted(
        range(len(requests)),
        key=lambda place: (
            len(requests[place].continuations) == 1,
            _longest(requests[place]) == 1,
            -len(requests[place].context) - _longest(requests[place]),
            requests[place].item,
        ),
    )
    batch: list[int] = []
    for place in order:
        tried = [*batch, place]
        rows = sum(len(requests[own].continuations) for own in tried)
        size = rows * max(_longest(requests[own]) for own in tried) * vocabulary * 4
        mixed = batch and (len(requests[batch[0]].continuations) == 1) != (
            len(requests[place].continuations) == 1
        )
        if batch and (len(tried) > batch_size or size > LOGIT_BYTES or mixed):
            yield batch
            tried = [place]
        batch = tried
    if batch:
        yield batch


def _longest(request: Request) -> int:
    return max(map(len, request.continuations))


def _whole(
    subject: Subject, requests: Sequence[Request], images: Sequence[ImageRef]
) -> list[tuple[float, ...]]:
    """Context and continuation in one pass, where each request has one continuation."""
    wanted = [request.continuations[0] for request in requests]
    inputs = [request.context + ids[:-1] for request, ids in zip(requests, wanted, strict=True)]
    ids, mask, positions = pad_left(inputs)
    longest = max(map(len, wanted))
    logits, _ = subject.forward(ids, mask, positions, keep=longest, images=images)
    targets, _, _ = pad_left(wanted)
    present = torch.tensor([[place >= longest - len(own) for place in range(longest)] for own in wanted])
    return [(value,) for value in _summed(logits, targets, present)]


def _shared(
    subject: Subject, requests: Sequence[Request], images: Sequence[ImageRef]
) -> list[tuple[float, ...]]:
    """One pass over the contexts, then one over the continuations' further tokens."""
    ids, mask, positions = pad_left([request.context for request in requests])
    further = any(_longest(request) > 1 for request in requests)
    logits, cache = subject.forward(ids, mask, positions, keep=1, images=images, use_cache=further)
    first = torch.log_softmax(logits[:, -1].float(), dim=-1).cpu()
    rows = [(row, own) for row, request in enumerate(requests) for own in request.continuations]
    scores = [float(first[row, own[0]]) for row, own in rows]
    longer = [place for place, (_, own) in enumerate(rows) if len(own) > 1]
    if longer:
        for place, value in zip(longer, _rest(subject, cache, mask, [rows[p] for p in longer]), strict=True):
            scores[place] += value
    values = iter(scores)
    return [tuple(next(values) for _ in request.continuations) for request in requests]


def _rest(subject: Subject, cache: Any, mask: Tensor, rows: Sequence[tuple[int, Ids]]) -> list[float]:
    """Summed log-probabilities of the continuations' tokens after the first."""
    index = torch.tensor([row for row, _ in rows])
    cache.batch_select_indices(index.to(subject.device))
    length = max(len(own) for _, own in rows) - 1
    inputs = torch.zeros(len(rows), length, dtype=torch.long)
    targets = torch.zeros(len(rows), length, dtype=torch.long)
    present = torch.zeros(len(rows), length, dtype=torch.bool)
    for place, (_, own) in enumerate(rows):
        inputs[place, : len(own) - 1] = torch.tensor(own[:-1])
        targets[place, : len(own) - 1] = torch.tensor(own[1:])
        present[place, : len(own) - 1] = True
    positions = mask[index].sum(1, keepdim=True) + torch.arange(length)
    whole = torch.cat([mask[index], present.long()], dim=1)
    logits, _ = subject.forward(inputs, whole, positions, keep=length, cache=cache, use_cache=True)
    return _summed(logits, targets, present)


def _summed(logits: Tensor, targets: Tensor, present: Tensor) -> list[float]:
    """Sum over present positions of the targets' log-probabilities, in float64."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    taken = logprobs.gather(-1, targets.to(logits.device).unsqueeze(-1)).squeeze(-1).cpu().double()
    return (taken * present).sum(1).tolist()


def pad_left(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, mask and positions ``[batch, time]`` (int64), padded on the left."""
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, length - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[place, length - len(row) :] = 1
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)
