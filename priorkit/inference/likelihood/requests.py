"""Context and continuation as token ids, by the conventions of lm-evaluation-harness.

Source: ``api/model.py``, ``models/huggingface.py`` and ``utils.py`` of EleutherAI/lm-evaluation-harness
0.4.13. A context begins with the beginning-of-text token if the tokenizer puts it there; an empty context becomes
that token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from priorkit.core.errors import InputError
from priorkit.models.language.tokenizer import prepend_bos

Encode = Callable[[str], list[int]]
Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LikelihoodRequest:
    """Continuations of one context to be scored.

    Attributes:
        item: number of the item it belongs to.
        context: at least one token id.
        continuations: at least one, none of them empty.
        places: for each continuation, its number among the item's continuations.
    """

    item: int
    context: Ids
    continuations: tuple[Ids, ...]
    places: tuple[int, ...]


def split_pair(
    encode: Encode, context: str, continuation: str, prefix: int, bos: Sequence[int] = ()
) -> tuple[list[int], list[int]]:
    """Token ids of a context and of its continuation.

    White space at the end of the context moves to the front of the continuation; the two are encoded as
    one text, of which the continuation is what exceeds the context's own number of tokens.

    Args:
        encode: text to ids without special tokens.
        context: may be empty.
        continuation: begins with the blank that joins it, if there is one.
        prefix: id of the beginning-of-text token.
        bos: ids that a context begins with; not repeated if the context's own text begins with them.
    """
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    if not stripped:
        ids = encode(continuation)
        return (ids[:1], ids[1:]) if ids and ids[0] == prefix else ([prefix], ids)
    bos = list(bos)
    ids = prepend_bos(encode(stripped), bos)
    return ids, prepend_bos(encode(stripped + continuation), bos)[len(ids) :]


def pair_problem(continuation: Sequence[int], index: int, limit: int) -> str:
    """Why a continuation cannot be scored; empty if it can.

    Args:
        continuation: its token ids.
        index: number of the option, from 0.
        limit: most tokens that the model takes.
    """
    if not continuation:
        return f"option {index + 1} has no token: it shares its only one with the end of the question"
    if len(continuation) > limit:
        return f"option {index + 1} has {len(continuation)} tokens, the model takes {limit}"
    return ""


def requests_of(
    item: int, pairs: Sequence[tuple[list[int], list[int]]], limit: int
) -> list[LikelihoodRequest]:
    """The requests for an item's pairs of context and continuation; equal contexts are joined.

    Context and continuation beyond ``limit + 1`` tokens lose their beginning.

    Raises:
        InputError: a continuation is empty or longer than the model takes.
    """
    grouped: dict[Ids, list[tuple[int, Ids]]] = {}
    for index, (context, continuation) in enumerate(pairs):
        if problem := pair_problem(continuation, index, limit):
            raise InputError(f"item {item}: {problem}")
        shortened = context[max(0, len(context) + len(continuation) - limit - 1) :]
        grouped.setdefault(tuple(shortened), []).append((index, tuple(continuation)))
    return [
        LikelihoodRequest(
            item, context, tuple(ids for _, ids in continuations), tuple(index for index, _ in continuations)
        )
        for context, continuations in grouped.items()
    ]


def rolling_requests(item: int, ids: Sequence[int], prefix: int, limit: int) -> list[LikelihoodRequest]:
    """Windows in which every token of a text is predicted once.

    The first window begins with the prefix token; each later one predicts up to ``limit`` further tokens
    from exactly ``limit`` inputs, the last one filled up with earlier tokens as context.
    """
    tokens = [prefix, *ids]
    requests: list[LikelihoodRequest] = []
    done = 0
    while done < len(ids):
        stop = min(done + limit, len(ids))
        # tokens[k] is the input that predicts ids[k].
        start = 0 if done == 0 else max(0, stop - limit)
        context, continuation = tuple(tokens[start : done + 1]), tuple(ids[done:stop])
        requests.append(LikelihoodRequest(item, context, (continuation,), (len(requests),)))
        done = stop
    return requests
