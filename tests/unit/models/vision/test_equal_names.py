"""Names that become the same tokens: unknown words, and names cut off where they still agree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from priorkit.models.vision.encoder import Encoder
from priorkit.models.vision.equal_names import SAME_COSINE, equal_names, first_alike, warn_of_equal_names

KNOWN = {
    word: number for number, word in enumerate(["a", "photo", "of", "the", "heron", "crane", "bird"], start=2)
}


class Words:
    """A tokenizer of a few words; all others are unknown (1); 0 pads."""

    model_max_length = 5

    def __call__(self, texts: list[str], **options: Any) -> dict[str, torch.Tensor]:
        rows = [[KNOWN.get(word, 1) for word in text.split()][: options["max_length"]] for text in texts]
        width = max(map(len, rows))
        padded = [row + [0] * (width - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        return {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(mask)}


def encoder() -> Encoder:
    config = SimpleNamespace(model_type="clip", max_position_embeddings=8)
    model = SimpleNamespace(config=config, get_text_features=None)
    return Encoder(cast("Any", model), None, Words())


def test_unknown_and_cut_off_names_are_groups() -> None:
    names = [
        "heron",
        "serval",
        "crane",
        "ocelot",
        "the bird of the heron crane",
        "the bird of the heron bird",
    ]
    assert equal_names(encoder(), names) == [
        ("serval", "ocelot"),
        ("the bird of the heron crane", "the bird of the heron bird"),
    ]
    # In a template both long names lose what distinguishes them, and 'a photo of a' leaves one word.
    assert equal_names(encoder(), ["the heron", "the crane"], ["a photo of a {}"]) == [
        ("the heron", "the crane")
    ]
    assert equal_names(encoder(), ["the heron", "the crane"], ["a photo of a {}", "{}"]) == []


@given(st.lists(st.sampled_from([*KNOWN, "serval", "ocelot", "the heron"]), unique=True, max_size=12))
def test_no_name_is_in_two_groups_and_known_words_are_in_none(names: list[str]) -> None:
    groups = equal_names(encoder(), names) if names else []
    grouped = [name for group in groups for name in group]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) <= {"serval", "ocelot"}
    assert len(grouped) == (2 if {"serval", "ocelot"} <= set(names) else 0)


def test_one_warning_counts_and_shows_a_few(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="priorkit"):
        warn_of_equal_names(encoder(), ["heron", "crane"])
        assert not caplog.records
        warn_of_equal_names(encoder(), ["heron", "serval", "ocelot", "margay"], source="birds")
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith("birds: the text tower cannot tell 3 of 4 names apart")
    assert "'serval' and 'ocelot'" in text


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
def test_the_first_name_with_the_same_features(seed: int, known: int, others: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.nn.functional.normalize(torch.randn(4, 64, generator=generator), dim=1)
    rows = kinds[torch.randint(4, (known + others,), generator=generator)]
    features = torch.nn.functional.normalize(
        rows + 1e-6 * torch.randn(rows.shape, generator=generator), dim=1
    )
    cosines = features @ features.T
    expected = [
        next((1 + i for i in range(min(j, known)) if cosines[i, j] > SAME_COSINE), 0)
        for j in range(known + others)
    ]
    assert first_alike(features[:known], features[:known], 0).tolist() == expected[:known]
    assert first_alike(features[:known], features[known:], known).tolist() == expected[known:]


def test_names_of_the_same_features_are_in_the_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="priorkit"):
        warn_of_equal_names(encoder(), ["heron", "crane", "bird"], alike=[("heron", "crane")])
        warn_of_equal_names(encoder(), ["serval", "ocelot", "crane"], alike=[("serval", "ocelot")])
        warn_of_equal_names(
            encoder(), ["serval", "ocelot", "crane"], alike=[("serval", "ocelot"), ("serval", "crane")]
        )
    features, tokens, both = (record.getMessage() for record in caplog.records)
    assert features == (
        "the text tower cannot tell 2 of 3 names apart: they have the same features but for rounding "
        "('heron' and 'crane'), so they tie"
    )
    assert "2 of 3 names" in tokens
    assert "features" not in tokens
    assert "3 of 3 names" in both
    assert (
        "('serval' and 'ocelot'); they have the same features but for rounding ('serval' and 'crane')" in both
    )
