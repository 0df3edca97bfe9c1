"""Every objective's forward pass and loss on CUDA, as far as can be checked without one.

No device mismatch, bf16 in the products, a loss in fp32, and nothing that makes the process wait for the device: the
training loop reads it once a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from priorkit.architectures.lion.conversations import select_task_types
from priorkit.architectures.lion.plan import trained_parts
from priorkit.architectures.lion.settings import LionSettings, stage_parts
from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.data.images.decoding import decode
from priorkit.data.images.pixels import Pixels
from priorkit.data.io.rejects import Rejects
from priorkit.data.pairs.reading import read_pairs
from priorkit.data.pairs.stored_pairs import Pairs
from priorkit.models.kernels import attention
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.models.language.tokenizer import IMAGE
from priorkit.models.multimodal.llava_assembly import ensure_image_token
from priorkit.models.multimodal.text_only import TextOnlyModel
from priorkit.models.vision.building import build_encoder
from priorkit.models.vision.encoder import Encoder, zero_shot_head
from priorkit.training.engine.compilation import fast_encoders
from priorkit.training.finetuning.objective import InstructionObjective
from priorkit.training.finetuning.vision_features import PerStepFeatures
from priorkit.training.objectives.base import to_device
from priorkit.training.objectives.captions import Captions
from priorkit.training.objectives.contrastive import ContrastiveObjective
from priorkit.training.objectives.language_modeling import CausalLMObjective, CausalLMWithLoss
from priorkit.training.objectives.regions import RegionTerm, RegionWeights
from priorkit.training.remediation.objective import (
    NameFeatures,
    RemediationObjective,
    Replay,
    TrainableNameHead,
)
from priorkit.training.remediation.settings import RemediationSettings
from priorkit.training.remediation.teachers import TeacherTargets
from priorkit.training.remediation.views import ViewSchedule
from tests.support.chat_models import gathered, make_llava, make_llm, make_tokenizer, talk
from tests.support.cuda_dry import BF16, CUDA, DeviceRecord, check_count, dry_cuda
from tests.support.lion_models import build_base, build_lion
from tests.support.lion_objective import objective as lion_objective
from tests.support.lion_objective import samples
from tests.support.region_pairs import region_rows, write_pairs

VARLEN = "torch's variable-length attention"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying kernels needs values, so the choice is made for it: the one that an H200 is expected to take."""
    monkeypatch.setattr(attention, "choose_kernel", lambda *_: VARLEN)


@pytest.fixture
def counted(request: pytest.FixtureRequest) -> str:
    """The name of this test in the table of kernels."""
    return str(request.node.name)


def check(
    counted: str, objective: Any, batch: Any, decoder: Any = None, modules: Sequence[nn.Module] = ()
) -> DeviceRecord:
    """The loss of a micro-batch on the device, with what every objective must keep to.

    Args:
        counted: the test's name in the table of kernels.
        objective: made on the CPU.
        batch: collated.
        decoder: the model whose attention is chosen.
        modules: to be moved in addition to the objective's own.
    """
    with dry_cuda() as record:
        for module in (objective.module, *modules):
            module.to(CUDA)
        if decoder is not None:
            choose_attention(decoder, "cuda", "bf16")
        moved = to_device(batch, CUDA)
        with BF16.autocast():
            objective.loss(moved)  # the first pass moves constants to the device
        record.clear()
        with BF16.autocast():
            loss = objective.loss(moved)
    assert record.waits == []
    assert torch.bfloat16 in record.products
    check_count(counted, sum(record.kernels.values()))
    assert loss.total.dtype == torch.float32
    assert loss.total.device == CUDA
    assert loss.total.requires_grad
    assert all(value.device == CUDA and value.ndim == 0 for value in loss.metrics.values())
    return record


class Rows:
    """A corpus of two documents a row."""

    def __init__(self, length: int = 24) -> None:
        self._length = length

    def __len__(self) -> int:
        return 8

    def row(self, index: int) -> Any:
        return np.arange(index, index + self._length) % 40 + 1

    def document_ids(self, index: int) -> Any:
        return (np.arange(self._length) > 5 + index).astype(np.int64)


@pytest.mark.parametrize("within_documents", [False, True])
@pytest.mark.parametrize(
    "fields", [{}, {"model_type": "mistral", "sliding_window": 8}, {"model_type": "gpt2", "attn_pdrop": 0.0}]
)
def test_pretraining(counted: str, tokenizer: Any, within_documents: bool, fields: dict[str, Any]) -> None:
    model = make_llm(tokenizer, **fields)
    module = CausalLMWithLoss(model)
    objective = CausalLMObjective(module, Rows(), 1, 1, within_documents)  # type: ignore[arg-type]
    batch = objective.collate([objective.sample(index, index) for index in range(4)])
    record = check(counted, objective, batch, model)
    packed = within_documents or "sliding_window" in fields
    assert ("_varlen_attn" in record.kernels) == packed
    assert ("_scaled_dot_product_flash_attention" in record.kernels) == (not packed)


CLIP = {
    "projection_dim": 16,
    "vision": {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
               "image_size": 48, "patch_size": 12},
    "text": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "max_position_embeddings": 16},
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    rows = region_rows(8, size=(60, 48))
    file = write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.parquet", rows)
    return read_pairs(file, Rejects(0.0), with_regions=True)


def new_encoder(pairs: Pairs, loss: Literal["clip", "siglip"]) -> Encoder:
    return build_encoder(CLIP, pairs.texts, [decode(ref) for ref in pairs.images], 300, 1, loss)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("chunk", [0, 3])
def test_contrastive_pretraining(
    counted: str, pairs: Pairs, loss: Literal["clip", "siglip"], regions: bool, chunk: int
) -> None:
    encoder = new_encoder(pairs, loss)
    choose_attention(encoder.model, "cuda")
    term = None
    if regions:
        weights = RegionWeights(1.0, 1.0, -1)
        term = RegionTerm(encoder, pairs.images, pairs.regions, weights, sigmoid=loss == "siglip")
    pixels = Pixels(pairs.images, encoder.prepare)
    objective = ContrastiveObjective(
        encoder, pixels, pairs.texts, AugmentationSettings(), 3, loss, chunk, term
    )
    batch = objective.collate([objective.sample(index, index) for index in range(8)])
    with fast_encoders(encoder.model, compiled=False, pooled_only=objective.pooled_only):
        record = check(counted, objective, batch)
    assert torch.float32 in record.products  # similarities, whatever the precision


@pytest.mark.parametrize("form", ["cross-entropy", "infonce", "sigmoid"])
@pytest.mark.parametrize("train_text", [False, True])
def test_remediation_with_all_terms(counted: str, pairs: Pairs, form: Any, train_text: bool) -> None:
    encoder, original = new_encoder(pairs, "clip"), new_encoder(pairs, "clip")
    choose_attention(encoder.model, "cuda")
    settings = RemediationSettings(
        seed=3, contrastive=form, contrastive_weight=1.0, keep_weight=0.5, relational_weight=0.5,
        replay="pairs", teacher=("teacher",),
    )  # fmt: skip
    views = ViewSchedule(Pixels(pairs.images, encoder.prepare), AugmentationSettings(), 3, 1)
    texts = list(dict.fromkeys(pairs.texts))
    heads = zero_shot_head(original, texts, ["a {}"])
    names = NameFeatures(heads, TrainableNameHead(encoder, texts, ["a {}"]) if train_text else None)
    teacher = torch.nn.functional.normalize(torch.randn(1, 8, 5), dim=-1)
    replay = Replay(
        ViewSchedule(Pixels(pairs.images, encoder.prepare), AugmentationSettings(), 4, 0),
        Captions(encoder, pairs.texts),
    )
    objective = RemediationObjective(
        encoder,
        views,
        [number % len(texts) for number in range(8)],
        names,
        settings,
        [TeacherTargets(teacher)],
        replay,
        original,
    )
    batch = objective.collate([objective.sample(index, index) for index in range(6)])
    with dry_cuda():
        on_device = NameFeatures(names.original.to(CUDA), names.head)
    objective._names = on_device
    check(counted, objective, batch, modules=[original.model])


TEXT = [talk(n, 0, words, turns) for n, (words, turns) in enumerate([(3, 1), (25, 2), (9, 1), (40, 1)])]
IMAGES = [talk(20, 2, 6), talk(21, 0, 14), talk(22, 3, 9, 2), talk(23, 1, 33)]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("trained", ["projector", "all"])
def test_tuning_with_several_images(
    counted: str, tokenizer: Any, tmp_path: Path, packing: bool, trained: str
) -> None:
    multimodal = make_llava(tokenizer)
    for name, parameter in multimodal.model.named_parameters():
        parameter.requires_grad_(trained == "all" or multimodal.parameter_part(name) == "projector")
    samples = gathered(IMAGES, tmp_path)
    chat = ChatTokenizer(multimodal.tokenizer, multimodal.image_tokens, multimodal.max_length)
    views = PerStepFeatures(multimodal, Pixels(samples.images, multimodal.prepare), trained=trained == "all")
    objective = InstructionObjective(multimodal, samples, chat, views, packing=packing)
    batch = objective.collate([objective.sample(index, index) for index in range(4)])
    record = check(counted, objective, batch, multimodal.model)
    assert "_varlen_attn" in record.kernels
    assert "masked_scatter" not in record.kernels  # its backward pass would wait


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_tuning_a_language_model_with_a_learned_placeholder(
    counted: str, tokenizer: Any, tmp_path: Path, family: str
) -> None:
    fields = (
        {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 4096} if family == "gemma2" else {}
    )
    model = make_llm(tokenizer, model_type=family, **fields)
    grown = ensure_image_token(model, tokenizer)
    assert grown >= 0
    samples = gathered(IMAGES, tmp_path)
    chat = ChatTokenizer(tokenizer, 2, 512)
    placeholder = nn.Embedding(2, model.config.hidden_size)
    module = nn.ModuleDict({"model": model, "placeholder": placeholder})
    subject = TextOnlyModel(model, tokenizer.get_vocab()[IMAGE])
    objective = InstructionObjective(subject, samples, chat, module=module, placeholder=placeholder)
    batch = objective.collate([objective.sample(index, index) for index in range(4)])
    check(counted, objective, batch, model)


@pytest.mark.parametrize("stage", ["1", "2", "3"])
@pytest.mark.parametrize("packing", [False, True])
def test_lion(counted: str, tmp_path: Path, stage: str, packing: bool) -> None:
    shape = stage_parts(LionSettings(stage=stage))
    lion = build_lion(
        build_base(tmp_path),
        branches=list(shape.branches),
        adapters=list(shape.adapters),
        router=shape.router,
    )
    trained = trained_parts(stage, lion.model.config.to_dict())
    for name, value in lion.model.named_parameters():
        value.requires_grad_(lion.parameter_part(name) in trained)
    indices, _ = select_task_types(samples(), shape.task_types)
    data = [samples()[index] for index in indices]
    own = lion_objective(lion, data, packing=packing)
    batch = own.collate([own.sample(place, 0) for place in range(len(data))])
    check(counted, own, batch, lion.model)
