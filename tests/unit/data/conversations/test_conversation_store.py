from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from priorkit.core.errors import InputError, UsageError
from priorkit.data.conversations.conversation import Conversation, Turn
from priorkit.data.conversations.conversation_store import (
    ConversationMixture,
    ConversationStore,
    map_samples,
    mix_conversations,
)
from priorkit.data.images.decoding import ImageRef


def talk(name: str, images: int = 0) -> Conversation:
    turns = (
        Turn("system", "s"),
        Turn("user", "<image>" * images + f"é {name}\n\ud800"),
        Turn("assistant", "a"),
    )
    refs = tuple(
        ImageRef(f"{name}.{n}", content=bytes([n]) * (n + 1))
        if n % 2
        else ImageRef(f"{name}.{n}", Path("x") / name)
        for n in range(images)
    )
    return Conversation(name, turns, refs, "group")


def made(
    tmp_path: Path, weights: dict[str, float] | None = None, subset: int | None = None, seed: int = 1
) -> ConversationMixture:
    sources = {"a": [talk(f"a{n}", n % 3) for n in range(30)], "b": [talk(f"b{n}") for n in range(10)]}
    return mix_conversations(sources, tmp_path, weights or {}, subset, 4.0, seed)


def test_conversations_come_back_as_they_were(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    given = [talk(f"n{n}", n) for n in range(5)]
    for conversation in given:
        store.append(conversation)
    with pytest.raises(ValueError, match="not sealed yet"):
        store[0]
    store.seal()
    assert list(store) == store[:] == given
    assert store[-1:] == given[-1:]
    assert list(tmp_path.iterdir()) == []


def test_images_that_consecutive_conversations_share_are_stored_once(tmp_path: Path) -> None:
    first, second, other = (ImageRef(name, content=name.encode() * 9999) for name in "abc")
    shown = [(first,), (first,), (second, first), (second, second), (), (second,), (other, second)]
    given = [
        Conversation(
            str(number), (Turn("user", "q"), Turn("assistant", "a")), images, payload={"n": [number]}
        )
        for number, images in enumerate(shown)
    ]
    store = ConversationStore(tmp_path)
    for conversation in given:
        store.append(conversation)
    store.seal()
    assert store[:] == given
    assert store._spool.size < 4 * 9999


def test_a_store_is_read_by_forked_processes(tmp_path: Path) -> None:
    samples = made(tmp_path)
    readers = [os.fork() for _ in range(2)]
    if 0 in readers:
        os._exit(int([item.id for item in samples] != [item.id for item in samples]))
    found = [item.id for item in samples]
    for process in readers:
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert found[0] == "a0"


def test_images_are_numbered_through(tmp_path: Path) -> None:
    samples = made(tmp_path)
    names = [image.name for conversation in samples for image in conversation.images]
    assert [image.name for image in samples.images] == names
    assert list(samples.images_of(5)) == [3 + 1, 3 + 2]
    assert [samples.images[n].name for n in samples.images_of(5)] == ["a5.0", "a5.1"]
    with pytest.raises(IndexError):
        samples.images[len(names)]


def test_all_samples_in_order_where_nothing_is_chosen(tmp_path: Path) -> None:
    samples = made(tmp_path)
    assert [c.id for c in samples] == [f"a{n}" for n in range(30)] + [f"b{n}" for n in range(10)]
    assert samples.sources == {"a": 30, "b": 10}


def test_weights_are_shares_of_samples(tmp_path: Path) -> None:
    samples = made(tmp_path, {"a": 1, "b": 1})
    assert samples.sources == {"a": 10, "b": 10}
    counts = Counter(c.id for c in samples)
    assert set(counts.values()) == {1}
    # Every stretch of samples has the mixture's proportions.
    assert 4 <= sum(c.id.startswith("a") for c in [samples[n] for n in range(10)]) <= 6
    more = made(tmp_path, {"a": 1, "b": 1}, subset=40)
    assert more.sources == {"a": 20, "b": 20}
    assert Counter(c.id for c in more if c.id.startswith("b")) == {f"b{n}": 2 for n in range(10)}


def test_a_subset_is_drawn_by_the_seed(tmp_path: Path) -> None:
    one, same, other = ([c.id for c in made(tmp_path, subset=12, seed=seed)] for seed in (1, 1, 2))
    assert len(set(one)) == 12
    assert one == same != other
    assert sum(name.startswith("a") for name in one) == 9


def test_a_mixture_that_cannot_be_drawn_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no source is named 'c'"):
        made(tmp_path, {"a": 1, "b": 1, "c": 1})
    with pytest.raises(UsageError, match=r"100 samples of 'b' are needed, it has 10.*\n.*--subset"):
        made(tmp_path, {"a": 1, "b": 1}, subset=200)
    with pytest.raises(InputError, match="no sample of b can be used"):
        mix_conversations({"a": [talk("x")], "b": []}, tmp_path, {}, None, 1.0, 0)


def test_changed_samples_keep_their_numbers_of_images(tmp_path: Path) -> None:
    samples = made(tmp_path)
    fewer = map_samples(samples, lambda index, sample: sample if index % 2 else None, tmp_path)
    assert [c.id for c in fewer] == [samples[n].id for n in range(1, 40, 2)]
    assert [len(fewer.images_of(n)) for n in range(len(fewer))] == [len(c.images) for c in fewer]
    assert np.array_equal(fewer.drawn, np.arange(20))
    assert fewer.sources == {"a": 15, "b": 5}
    only = map_samples(samples, lambda _, sample: sample if sample.id.startswith("b") else None, tmp_path)
    assert only.sources == {"a": 0, "b": 10}
