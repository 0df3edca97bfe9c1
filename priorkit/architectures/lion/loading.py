"""The model that a stage of LION starts from, with the stage's parts trainable and all others frozen."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from priorkit.architectures.lion.build import LionMultimodal, compose, load_on_base
from priorkit.architectures.lion.plan import LionPlan
from priorkit.architectures.lion.pretrained_qformer import load_queries
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.multimodal.llava import has_linear_projector, load_llava


def load_for_training(planned: LionPlan, seed: int, device: torch.device) -> LionMultimodal:
    """The adapter that the stage continues, or new parts on the base, on a device.

    Args:
        planned: base, adapter and the parts to train.
        seed: initializes new parts.
        device: where the weights go.

    Raises:
        InputError: base or adapter cannot be loaded.
    """
    if planned.start is not None:
        lion = load_on_base(planned.base.path, planned.start, tags=planned.fields["tags"], seed=seed)
    else:
        lion = compose(load_llava(planned.base.path), planned.fields, seed)
        if planned.queries is not None:
            load_queries(lion.model.model.lion.qformer, planned.queries)
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
