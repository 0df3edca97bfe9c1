"""Loading LION, strictly: a full model, an adapter on its base, and the model that a stage starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from priorkit.architectures.lion.artifact import read_adapter_config
from priorkit.architectures.lion.build import LionMultimodal, base_shape, compose
from priorkit.architectures.lion.modeling.model import LionForConditionalGeneration, parameter_part
from priorkit.architectures.lion.plan import LionPlan
from priorkit.architectures.lion.pretrained_qformer import load_queries
from priorkit.core.errors import InputError, UsageError
from priorkit.core.process.runtime import Runtime
from priorkit.inference.model_info import ADAPTER_MODEL
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.multimodal.llava import LlavaMultimodal, has_linear_projector, load_llava
from priorkit.models.pretrained import load_preprocessor, load_pretrained, refuse_missing_tensors


def compose_adapter(
    base: LlavaMultimodal, folder: Path, tags: str | None = None, seed: int = 0
) -> LionMultimodal:
    """A LION model of a base and an adapter artifact.

    Args:
        base: a LLaVA model.
        folder: the adapter.
        tags: another way with tags than the adapter's; a soft prompt that it does not have is drawn.
        seed: draws it.

    Raises:
        InputError: the adapter is for a base of another shape, or its tensors are not exactly those that
            its configuration asks for.
    """
    written = read_adapter_config(folder)
    shape = base_shape(base.model.config)
    if written["base"] != shape:
        raise InputError(
            f"the adapter was made for a base of {written['base']}, this one is {shape}", where=str(folder)
        )
    fields = {**written["lion"], "tags": tags or written["lion"]["tags"]}
    lion = compose(base, fields, seed)
    fresh = ("soft prompt",) if fields["tags"] == "soft" != written["lion"]["tags"] else ()
    load_tensors(lion, load_file(folder / ADAPTER_MODEL), str(folder), fresh)
    return lion


def load_tensors(
    lion: LionMultimodal, tensors: Mapping[str, Tensor], where: str, fresh: Sequence[str]
) -> None:
    """Put tensors into LION's parts, strictly.

    Args:
        lion: whose parts are set.
        tensors: by name.
        where: for messages.
        fresh: parts that may be missing and stay as they are.

    Raises:
        InputError: naming every kind of mismatch.
    """
    expected = lion.own_tensors()
    missing = sorted(name for name in expected if name not in tensors and parameter_part(name) not in fresh)
    unexpected = sorted(name for name in tensors if name not in expected)
    misfits = sorted(
        name for name in tensors if name in expected and tensors[name].shape != expected[name].shape
    )
    problems = [
        f"{len(names)} {what} tensors, such as {', '.join(names[:3])}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("misfitting", misfits))
        if names
    ]
    if problems:
        raise InputError("; ".join(problems), where=where)
    with torch.no_grad():
        for name, value in tensors.items():
            expected[name].copy_(value)


def load_lion(folder: Path) -> LionMultimodal:
    """Load a full LION model in fp32 with its processor.

    Raises:
        InputError: it cannot be loaded, or a tensor is missing, unexpected or of another shape.
    """
    from transformers import AutoProcessor

    model, info = load_pretrained(LionForConditionalGeneration, folder, dtype=torch.float32)
    refuse_missing_tensors(info, folder)
    return LionMultimodal(model, load_preprocessor(AutoProcessor, folder))


def load_on_base(
    base: Path, adapter: Path, tags: str | None = None, seed: int = 0, template: str | None = None
) -> LionMultimodal:
    """Load a LLaVA model and put a LION adapter on it; see :func:`compose_adapter`."""
    return compose_adapter(load_llava(base, template), adapter, tags, seed)


def load_for_training(
    planned: LionPlan, seed: int, device: torch.device, template: str | None = None
) -> LionMultimodal:
    """The adapter that the stage continues, or new parts on the base, on a device.

    Args:
        planned: base, adapter and the parts to train.
        seed: initializes new parts.
        device: where the weights go.
        template: ``--chat-template``, which replaces the model's.

    Raises:
        InputError: base or adapter cannot be loaded.
    """
    if planned.start is not None:
        tags = planned.fields["tags"]
        lion = load_on_base(planned.base.path, planned.start, tags=tags, seed=seed, template=template)
    else:
        lion = compose(load_llava(planned.base.path, template), planned.fields, seed)
        if planned.queries is not None:
            load_queries(lion.model.model.lion.qformer, planned.queries, lion.tokenizer)
    lion.model.to(device)
    choose_attention(lion.model, device.type)
    freeze(lion, planned.trained)
    return lion


def freeze(lion: LionMultimodal, trained: Sequence[str]) -> None:
    """Freeze all parts but these; the second matrix of a linear projector is the identity and stays frozen."""
    fixed = has_linear_projector(lion.model)
    for name, parameter in lion.model.named_parameters():
        identity = fixed and "multi_modal_projector.linear_2" in name
        parameter.requires_grad_(lion.parameter_part(name) in trained and not identity)


def store_frozen(model: nn.Module, dtype: str, runtime: Runtime) -> None:
    """Keep the frozen weights in a type; those that train stay in fp32.

    Raises:
        UsageError: bf16 weights without bf16 arithmetic.
    """
    if dtype == "fp32":
        return
    if runtime.precision != "bf16":
        raise UsageError(
            "needs --precision bf16: matrix products take operands of one type", where="--frozen-dtype"
        )
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
