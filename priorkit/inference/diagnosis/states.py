"""States of a multimodal model along the way of an image: encoder, projector, layers; and its logit lens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from priorkit.core.process.progress import track
from priorkit.data.conversations.task_conversations import IMAGE_LEVEL
from priorkit.data.images.decoding import ImageRef
from priorkit.inference.prompt_inputs import PromptInputs

if TYPE_CHECKING:
    from priorkit.inference.model_adapter import ModelAdapter

_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f", "embedding_norm")
"""Names that decoders of transformers give to the norm before the head."""


@dataclass(frozen=True)
class ImageStates:
    """States of images, in their order.

    Attributes:
        encoder: ``[images, width]`` fp32, the mean over positions of what the projector reads; None where the
            model has no image encoder that can be used by itself.
        projected: ``[images, hidden]`` fp32, the mean of the embeddings in the image's positions; None likewise.
        layers: ``[images, chosen layers, hidden]`` fp32 in a file, at the last position of the prompt.
        numbers: of these layers; 0 is the embeddings.
        visual: ``[images, chosen layers]`` logit of the token of the visual answer, by logit lens.
        prior: the same of the prior's answer.
        left_out: measures that this family of models does not allow, with the reason.
    """

    encoder: Tensor | None
    projected: Tensor | None
    layers: NDArray[np.float32]
    numbers: Sequence[int]
    visual: NDArray[np.float64]
    prior: NDArray[np.float64]
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])

    def layer(self, index: int) -> Tensor:
        """States of one of the chosen layers, read from the file: ``[images, hidden]`` fp32."""
        return torch.from_numpy(np.array(self.layers[:, index]))


def chosen_layers(depth: int, count: int) -> list[int]:
    """Up to ``count`` of the hidden states 1 to ``depth``, evenly spread, with the last one.

    >>> chosen_layers(32, 4), chosen_layers(3, 8)
    ([8, 16, 24, 32], [1, 2, 3])
    """
    count = min(count, depth)
    return [depth * (index + 1) // count for index in range(count)]


def final_norm(decoder: Any) -> Callable[[Tensor], Tensor] | None:
    """The norm between a decoder's last layer and the head; None where it has none of a known name."""
    for name in _NORMS:
        norm: Any = getattr(decoder, name, None)
        if callable(norm):
            return cast("Callable[[Tensor], Tensor]", norm)
    return None


@torch.no_grad()
def image_states(
    model: ModelAdapter,
    prompt: Sequence[int],
    inputs: Sequence[PromptInputs],
    answers: Sequence[tuple[int, int]],
    *,
    layers: int,
    batch_size: int,
    scratch: Path,
) -> ImageStates:
    """States of all images, one pass each, with the same question.

    Args:
        model: a multimodal model.
        prompt: token ids of the question with the image's positions.
        inputs: the image of each prompt.
        answers: of each image the first tokens of the visual answer and of the prior's answer.
        layers: most layers whose states are kept.
        batch_size: images per forward pass.
        scratch: folder of the file that the layers' states are written to.
    """
    multimodal = model.multimodal
    assert multimodal is not None  # the caller has checked it
    count = len(inputs)
    visual: NDArray[np.float64] | None = None
    encoder: Tensor | None = None
    projected = torch.zeros(0)
    kept: Any = None
    numbers: list[int] = []
    starts = range(0, count, batch_size)
    for start in track(starts, "read states", len(starts), "batches"):
        rows = slice(start, min(start + batch_size, count))
        model.forget()
        features = model.features([row.images[0] for row in inputs[rows]])
        embedded, states = _states(model, prompt, inputs[rows], features)
        if encoder is None:
            numbers = chosen_layers(len(states) - 1, layers)
            encoder = torch.zeros(count, features[0].mean(-2).numel())
            projected = torch.zeros(count, embedded.shape[-1])
            kept = np.lib.format.open_memmap(
                scratch / "layers.npy", mode="w+", dtype=np.float32,
                shape=(count, len(numbers), states[0].shape[-1]),
            )  # fmt: skip
            visual = np.full((count, len(numbers), 2), np.nan)
        assert visual is not None
        encoder[rows] = features.mean(-2).flatten(1).float().cpu()
        projected[rows] = embedded.float().cpu()
        tokens = torch.tensor(answers[rows], device=states[0].device)
        norm = final_norm(multimodal.decoder)
        for index, number in enumerate(numbers):
            kept[rows, index] = states[number].float().cpu().numpy()
            last = number == len(states) - 1
            if norm is None and not last:
                continue
            # The last hidden state is behind the norm already.
            logits = multimodal.logits(states[number] if last or norm is None else norm(states[number]))
            visual[rows, index] = logits.float().gather(-1, tokens).double().cpu().numpy()
    assert encoder is not None
    assert visual is not None
    kept.flush()
    return ImageStates(encoder, projected, kept, numbers, visual[..., 0], visual[..., 1])


def _states(
    model: ModelAdapter, prompt: Sequence[int], inputs: Sequence[PromptInputs], features: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Mean embedding of each image's positions ``[batch, hidden]``, and the last position's states by layer."""
    multimodal = model.multimodal
    assert multimodal is not None
    ids = torch.tensor([list(prompt)] * len(inputs), device=model.device)
    positions = torch.arange(ids.shape[1], device=model.device).expand_as(ids)
    options = multimodal.row_options(
        ids, [row.question for row in inputs], [row.task_type for row in inputs], None, False
    )
    with _embeddings_read(multimodal.decoder) as seen:
        output = multimodal.hidden(
            ids, torch.ones_like(ids), features, position_ids=positions, output_hidden_states=True,
            use_cache=False, **options,
        )  # fmt: skip
    at_image = ids[0] == multimodal.model.config.image_token_id
    states = [state[:, -1] for state in output.hidden_states[:-1]] + [output.last_hidden_state[:, -1]]
    return seen[0][:, at_image].float().mean(1), states


@contextmanager
def _embeddings_read(decoder: Any) -> Iterator[list[Tensor]]:
    """The embeddings that a decoder is called with, whatever put the image into them."""
    seen: list[Tensor] = []

    def keep(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["inputs_embeds"])

    handle = decoder.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


@torch.no_grad()
def name_embeddings(model: Any, names: Sequence[Sequence[int]]) -> Tensor:
    """Mean input embedding of each name's tokens, fp32 ``[names, hidden]`` on the CPU.

    Args:
        model: a model of transformers.
        names: token ids of each.
    """
    table = model.get_input_embeddings().weight
    return torch.stack(
        [table[torch.tensor(list(ids), device=table.device)].float().mean(0).cpu() for ids in names]
    )


def image_inputs(model: ModelAdapter, images: Sequence[ImageRef], question: str) -> list[PromptInputs]:
    """What accompanies a question about each image; for a model that reads it, the question itself."""
    if not model.capabilities.questions:
        return [PromptInputs((image,)) for image in images]
    return [PromptInputs((image,), question, IMAGE_LEVEL) for image in images]
