"""Rendered conversations through gigatoken: the tokens and characters of the tokenizer, or none."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors

from priorkit.data.text import rendered_text as module
from priorkit.data.text.fast_encoder import SAMPLE, FastEncodingDiffers
from priorkit.data.text.rendered_text import RenderedTextEncoder
from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe
from tests.support.gigatoken import stand_in  # noqa: F401

TEXTS = ["The heron's 12 wings, in 2024.", "def f(x):\n    return x ** 2\n", "über  naïve\u2019s é"] * 4
pytestmark = pytest.mark.usefixtures("stand_in")
installed = importlib.util.find_spec("gigatoken") is not None


def saved(backend: Tokenizer, folder: Path) -> Any:
    save_tokenizer(backend, folder)
    return load_tokenizer(folder)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    return saved(train_bpe(TEXTS, 320, "qwen2"), tmp_path)


@pytest.mark.parametrize(
    "real",
    [False, pytest.param(True, marks=pytest.mark.skipif(not installed, reason="gigatoken is not installed"))],
)
def test_tokens_and_characters_are_the_tokenizers(
    tokenizer: Any, real: bool, request: pytest.FixtureRequest
) -> None:
    if real:
        request.getfixturevalue("monkeypatch").undo()
    encoder = RenderedTextEncoder(tokenizer)

    @settings(max_examples=80, deadline=None)
    @given(
        parts=st.lists(
            st.one_of(st.text(max_size=20), st.sampled_from(["</s>", "<image>", "<s>", " \n", " x", *SAMPLE]))
        )
    )
    def check(parts: list[str]) -> None:
        assert encoder.agrees("".join(parts))

    check()


@pytest.mark.parametrize("prefix", [False, True])
def test_spaces_are_left_out_of_the_characters_where_the_tokenizer_does_so(
    tmp_path: Path, prefix: bool
) -> None:
    backend = train_bpe(TEXTS, 320, "qwen2")
    encoders: list[RenderedTextEncoder] = []
    for trims in (True, False):
        backend.post_processor = processors.ByteLevel(trim_offsets=trims, add_prefix_space=prefix)
        encoders.append(RenderedTextEncoder(saved(backend, tmp_path / str(trims))))
    for text in ("</s> a heron\n\n in\t2024 ", " x", "  x", "</s>  x ", ""):
        assert all(encoder.agrees(text) for encoder in encoders)
    assert encoders[0].encode("a x") != encoders[1].encode("a x")


@pytest.mark.parametrize("change", ["strips", "normalizes", "unicode"])
def test_other_tokenizers_are_refused(tmp_path: Path, change: str) -> None:
    backend = train_bpe(TEXTS, 320, "qwen2")
    if change == "strips":
        backend.add_special_tokens([AddedToken("<pad>", lstrip=True)])
        backend.add_tokens([AddedToken("<turn>", rstrip=True)])
    elif change == "normalizes":
        backend.normalizer = normalizers.NFC()
    else:
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match=r"."):
        RenderedTextEncoder(saved(backend, tmp_path))


def test_other_ids_are_refused_or_reported(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = RenderedTextEncoder(tokenizer)
    encoder._documents._fast._documents = 0  # type: ignore[union-attr]
    with pytest.raises(FastEncodingDiffers):
        encoder.encode("WRONG")
    monkeypatch.setattr(module, "SAMPLE", ("WRONG",))
    with pytest.raises((ValueError, FastEncodingDiffers)):
        RenderedTextEncoder(tokenizer)
