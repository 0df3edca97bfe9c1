"""States of an image-text-to-text model of any family: its encoder by itself, its layers by hooks.

``generate`` puts images, positions and masks together as each family needs them; while it computes the first token of
an answer, hooks keep the last position of the layers and of what the head reads. So nothing of a family is known here
but where its decoder's layers, final norm and head are, and the logit lens is used only where these give the logits
that the model gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from priorkit.core.errors import InputError
from priorkit.core.process.progress import track
from priorkit.inference.backends.generate import TOLERANCE
from priorkit.inference.backends.images import decode_bounded
from priorkit.inference.diagnosis.states import ImageStates, chosen_layers, final_norm
from priorkit.models.multimodal.image_part import ImagePart, image_part_of

if TYPE_CHECKING:
    from priorkit.inference.backends.base import Prompt
    from priorkit.inference.backends.generate import GenerateBackend

_HEAD = 0
"""Key of what the head reads; layers count from 1."""


@torch.no_grad()
def foreign_states(
    backend: GenerateBackend,
    prompts: Sequence[Prompt],
    answers: Sequence[tuple[int, int]],
    *,
    layers: int,
    batch_size: int,
    scratch: Path,
) -> ImageStates:
    """States of all images: each passes the encoder by itself, and the whole model once with its question.

    Encoder features are means over the positions that the projector reads.

    Args:
        backend: a model of transformers with its processor.
        prompts: the question with each image.
        answers: of each image the first tokens of the visual answer and of the prior's answer.
        layers: most layers whose states are kept.
        batch_size: prompts per batch.
        scratch: folder of the file that the layers' states are written to.

    Raises:
        InputError: the model cannot take a prompt, or has no head.
    """
    left_out: dict[str, str] = {}
    encoder, projected = _encoded(backend, prompts, left_out)
    decoder = backend.model.get_decoder()
    stack = _stack(decoder)
    depth = len(stack) or int(backend.model.config.get_text_config().num_hidden_layers)
    numbers = chosen_layers(depth, layers) if stack else [depth]
    lens: Lens | None = None
    kept: Any = None
    logits_of = np.full((len(prompts), len(numbers), 2), np.nan)
    starts = range(0, len(prompts), batch_size)
    for start in track(starts, "read states", len(starts), "batches"):
        batch = prompts[start : start + batch_size]
        with _last_positions(stack, head_of(backend)) as seen:
            for rows, logits in backend.first_logits(batch):
                read = dict(seen)
                places = [start + row for row in rows]
                tokens = torch.tensor([answers[place] for place in places], device=logits.device)
                if lens is None:
                    lens = Lens(decoder, head_of(backend), read.get(depth), logits)
                    kept = np.lib.format.open_memmap(
                        scratch / "layers.npy", mode="w+", dtype=np.float32,
                        shape=(len(prompts), len(numbers), read[_HEAD].shape[-1]),
                    )  # fmt: skip
                for index, number in enumerate(numbers):
                    # The last hidden state is what the head reads, behind the norm.
                    state = read[_HEAD if number == depth else number]
                    kept[places, index] = state.float().cpu().numpy()
                    found = logits if number == depth else lens(state)
                    if found is not None:
                        logits_of[places, index] = found.gather(-1, tokens).double().cpu().numpy()
    if not stack:
        left_out["layers before the last"] = "its decoder has no list of layers"
    elif lens is not None and not lens.exact and len(numbers) > 1:
        left_out["arbitration before the last layer"] = (
            "its final norm and head do not give the model's logits, so that there is no logit lens"
        )
    kept.flush()
    return ImageStates(encoder, projected, kept, numbers, logits_of[..., 0], logits_of[..., 1], left_out)


def _encoded(
    backend: GenerateBackend, prompts: Sequence[Prompt], left_out: dict[str, str]
) -> tuple[Tensor | None, Tensor | None]:
    """Means of what the projector reads and gives for each image; None where there is no encoder."""
    try:
        part = image_part_of(
            backend.model, backend.processor, backend.image_token, backend.tokenizer.name_or_path
        )
    except InputError as error:
        for name in ("encoder_separability", "projector_change", "readout_change", "name_retrieval"):
            left_out[name] = error.what
        return None, None
    rows = [
        _means(part, prompt, backend.max_pixels)
        for prompt in track(prompts, "encode images", len(prompts), "images")
    ]
    projected = torch.stack([row[1] for row in rows])
    table = backend.model.get_input_embeddings().weight
    if not part.projects_to_embeddings or projected.shape[-1] != table.shape[-1]:
        left_out["name_retrieval"] = (
            "its language model reads images otherwise than as embeddings of tokens, so that they cannot be "
            "compared with names"
        )
    return torch.stack([row[0] for row in rows]), projected


def _means(part: ImagePart, prompt: Prompt, max_pixels: int) -> tuple[Tensor, Tensor]:
    encoded = part.encode(part.prepare(decode_bounded(prompt.images[0], max_pixels)))
    return encoded.read.float().mean(0).cpu(), encoded.embedded.float().mean(0).cpu()


def head_of(backend: GenerateBackend) -> Any:
    """A model's output embeddings.

    Raises:
        InputError: it has none, so that its last state and its names cannot be related.
    """
    head = backend.model.get_output_embeddings()
    if head is None:
        raise InputError(
            f"{type(backend.model).__name__} has no output embeddings, so that its states cannot be read",
            where=str(backend.tokenizer.name_or_path),
            hint="evaluate takes this model",
        )
    return head


def _stack(decoder: Any) -> Sequence[Any]:
    """The decoder's layers in order; empty where they are under no known name."""
    found = getattr(decoder, "layers", None)
    return [*found] if isinstance(found, nn.ModuleList) else []


class Lens:
    """The logits that a decoder's final norm and its head give to the states of a layer.

    Args:
        decoder: the language model without its head.
        head: the output embeddings.
        last: ``[rows, hidden]`` output of the last layer; None where it is not known.
        logits: ``[rows, vocabulary]`` of the model for the same rows.

    Attributes:
        exact: whether they are the model's logits at the last layer; scaled or bounded logits are not.
    """

    def __init__(self, decoder: Any, head: Any, last: Tensor | None, logits: Tensor) -> None:
        self._norm, self._head = final_norm(decoder), head
        self.exact = self._norm is not None and last is not None
        if self.exact:
            assert last is not None
            found = self(last)
            assert found is not None
            tolerance = TOLERANCE.get(last.dtype, 1e-3) * float(logits.abs().max())
            self.exact = found.shape == logits.shape and bool((found - logits).abs().max() <= tolerance)

    def __call__(self, states: Tensor) -> Tensor | None:
        """Logits of states ``[rows, hidden]``, fp32; None where they would not be the model's."""
        if not self.exact or self._norm is None:
            return None
        return self._head(self._norm(states)).float()


@contextmanager
def _last_positions(stack: Sequence[Any], head: Any) -> Iterator[Mapping[int, Tensor]]:
    """The last position of each layer's output, by number from 1, and of what the head reads, in the latest pass."""
    seen: dict[int, Tensor] = {}

    def keep_output(number: int, module: Any, args: Any, output: Any) -> None:
        seen[number] = (output[0] if isinstance(output, tuple) else output)[:, -1].detach()

    def keep_input(module: Any, args: Any) -> None:
        seen[_HEAD] = args[0].reshape(args[0].shape[0], -1, args[0].shape[-1])[:, -1].detach()

    handles = [
        layer.register_forward_hook(partial(keep_output, number)) for number, layer in enumerate(stack, 1)
    ]
    handles.append(head.register_forward_pre_hook(keep_input))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
