"""Encoders are transformers' CLIP models."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoProcessor, CLIPModel

from priorkit.data.images.decoding import decode
from priorkit.data.images.entities import read_entities
from priorkit.data.io.rejects import Rejects
from priorkit.models.vision.encoder import l2_normalize as normalised
from priorkit.models.vision.encoder import zero_shot_head
from priorkit.models.vision.loading import load_encoder

SHORT = ("--steps", 2, "--batch-size", 8, "--precision", "fp32", "--device", "cpu")


def test_features_are_those_of_clip_model_and_auto_processor(artifacts) -> None:
    model, processor = (
        CLIPModel.from_pretrained(artifacts.encoder).eval(),
        AutoProcessor.from_pretrained(artifacts.encoder),
    )
    ours = load_encoder(artifacts.encoder)
    images = [decode(ref) for ref in read_entities(artifacts.images, Rejects(0)).images[:5]]
    images.append(images[0].resize((100, 61)))
    texts = ["a photo of a heron", "ADI shakti", "a very long caption " * 20]
    theirs = processor(
        text=texts, images=images, return_tensors="pt", padding=True, truncation=True, max_length=32
    )
    with torch.no_grad():
        expected = model(**theirs)
        pixels = torch.stack([ours.prepare(image) for image in images])
        torch.testing.assert_close(ours.normalize(pixels), theirs["pixel_values"], rtol=0, atol=1e-6)
        torch.testing.assert_close(
            normalised(ours.image_features(pixels)), expected.image_embeds, rtol=1e-5, atol=1e-6
        )
        torch.testing.assert_close(
            torch.cat(list(ours.encode_texts(texts, batch_size=2))),
            expected.text_embeds,
            rtol=1e-4,
            atol=1e-5,
        )


def test_rank_e_is_the_count_of_better_names_by_plain_transformers(artifacts) -> None:
    model, processor = (
        CLIPModel.from_pretrained(artifacts.encoder).eval(),
        AutoProcessor.from_pretrained(artifacts.encoder),
    )
    entities = read_entities(artifacts.images, Rejects(0))
    texts = [f"a photo of a {name}" for name in entities.entities]
    with torch.no_grad():
        output = model(
            **processor(
                text=texts, images=[decode(ref) for ref in entities.images], return_tensors="pt", padding=True
            )
        )
    similarity = output.logits_per_image
    truth = torch.tensor(entities.entity_of)
    true_similarity = similarity[torch.arange(len(truth)), truth]
    ranks = 1 + (similarity > true_similarity[:, None]).sum(dim=1).double()
    shown = pq.read_table(artifacts.scores / "table.parquet").to_pydict()
    assert shown["entity"] == list(entities.entities)
    for number, rank in enumerate(shown["mean_rank"]):
        assert rank == pytest.approx(float(ranks[truth == number].mean()), abs=0.51)


def test_a_zero_shot_head_averages_templates(artifacts) -> None:
    encoder = load_encoder(artifacts.encoder)
    one, two = (zero_shot_head(encoder, ["heron", "egret"], [t]) for t in ("a {}", "the {}"))
    both = zero_shot_head(encoder, ["heron", "egret"], ["a {}", "the {}"])
    torch.testing.assert_close(both, normalised(one + two), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("--lora-rank", 2),
        ("--interpolate", 0.5),
        ("--trainable", "last-1"),
        ("--teacher", "SELF", "--augment-crop", 0.5, "--relational-weight", 1),
        ("--contrastive", "infonce"),
        ("--contrastive", "sigmoid"),
        ("--replay", "PAIRS"),
    ],
)
def test_a_remediated_encoder_loads_and_keeps_its_text_tower(
    artifacts, cli, tmp_path: Path, extra: tuple[object, ...]
) -> None:
    words = [
        {"SELF": artifacts.encoder, "PAIRS": artifacts.pairs}.get(word, word)
        if isinstance(word, str)
        else word
        for word in extra
    ]
    found = cli(
        "distill-encoder",
        artifacts.encoder,
        artifacts.images,
        *SHORT,
        *words,
        "--out",
        tmp_path / "remediated",
    )
    assert found.code == 0, found.err
    before, after = CLIPModel.from_pretrained(artifacts.encoder), CLIPModel.from_pretrained(found.path)
    AutoProcessor.from_pretrained(found.path)
    changed = {
        name for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(old, new)
    }  # fmt: skip
    assert changed
    assert not {name for name in changed if name.startswith("text") or name == "logit_scale"}
    if "--trainable" in extra:
        assert not {name for name in changed if "layers.0." in name or "embeddings" in name}


def test_interpolation_at_zero_gives_the_original(artifacts, cli, tmp_path: Path) -> None:
    found = cli(
        "distill-encoder",
        artifacts.encoder,
        artifacts.images,
        *SHORT,
        "--interpolate",
        0,
        "--lora-rank",
        2,
        "--out",
        tmp_path / "same",
    )
    assert found.code == 0, found.err
    before, after = CLIPModel.from_pretrained(artifacts.encoder), CLIPModel.from_pretrained(found.path)
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(old, new)
