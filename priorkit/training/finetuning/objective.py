"""Objective of align, tune and blind-tune: the assistant's words, given images and questions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from priorkit.core import distributed
from priorkit.core.errors import InputError
from priorkit.core.runtime import Runtime
from priorkit.data.conversations.conversation import Conversation
from priorkit.data.conversations.sample_packing import FINE, into_rows
from priorkit.models.blocks import transformer_blocks
from priorkit.models.kernels.attention import PACKED, document_mask, document_positions
from priorkit.models.kernels.cross_entropy import IGNORE, count_targets, output_head, token_loss
from priorkit.models.language.chat_template import ChatTokenizer, TokenizedConversation
from priorkit.training.engine.activation_checkpointing import Activations, checkpoint_activations
from priorkit.training.engine.resource_estimates import TuningCounts
from priorkit.training.objectives.base import Loss

logger = logging.getLogger(__name__)

KEEP_TOKENS = 32 << 20
"""Tokenised conversations are kept in each process up to this many tokens; beyond, they are tokenised anew."""


class Subject(Protocol):
    """What is being taught: :class:`priorkit.models.multimodal.llava.LlavaMultimodal` or ``TextOnlyModel``."""

    model: Any

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def decoder(self) -> Any:
        """The language model without its head."""
        ...

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        features: Tensor | None,
        placeholder: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """The language model's output over text and images; see ``LlavaMultimodal.hidden``."""
        ...

    def parameter_part(self, name: str) -> str:
        """The part that a parameter belongs to."""
        ...


class Views(Protocol):
    """Where the features of images come from; see :mod:`priorkit.training.finetuning.vision_features`."""

    def collate(self, images: Sequence[int]) -> dict[str, Tensor]:
        """What a batch carries for its images, made in a worker process."""
        ...

    def features(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """``[images, tokens, width]`` of a batch on the device; None where it has no image."""
        ...

    def some(self) -> Tensor:
        """Features ``[1, tokens, width]`` of an image, whichever."""
        ...


class Conversations(Protocol):
    """Samples by number, with the numbers of their images; see :class:`priorkit.data.conversations.conversation_store.Samples`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Conversation: ...
    def images_of(self, index: int, /) -> Sequence[int]:
        """The numbers of a sample's images."""
        ...


@dataclass(frozen=True)
class Sample:
    """A tokenised conversation with the numbers of its images."""

    encoded: TokenizedConversation
    images: tuple[int, ...]


class Whole(nn.Module):
    """What is called where parameters are shared among processes: while it works, those outside the layers are whole.

    The objective calls the model's parts one by one, and only what is called gathers its parameters.

    Args:
        inner: holds the parameters.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, work: Callable[[Mapping[str, Tensor]], Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """What the work makes of a batch."""
        return work(batch)


class InstructionObjective:
    """Instruction tuning, with and without images in a batch, packed or padded.

    Packed, the samples of a micro-batch share rows; attention stays within each, positions begin anew with
    each, and no token predicts the first of the next, so loss and gradients are those of the padded batch.

    Args:
        subject: what to train; which parameters train is set by the caller.
        samples: the conversations; tokenised when they are asked for.
        chat: applies the chat template and expands image placeholders.
        views: gives the features of images; None where there are none.
        scales: learning-rate multiplier of each part (``projector``, ``llm``, ``encoder``).
        packing: whether samples share rows, where the model can keep them apart.
        module: what holds the parameters, where that is a wrapper around the model (PEFT, a placeholder).
        placeholder: its ``weight`` ``[tokens, width]`` stands where an image would.
        lengths_per_octave: row lengths between a power of two and the next; few where each is compiled.
    """

    unit = "tokens"

    def __init__(
        self,
        subject: Subject,
        samples: Conversations,
        chat: ChatTokenizer,
        views: Views | None = None,
        scales: Mapping[str, float] | None = None,
        packing: bool = True,
        module: nn.Module | None = None,
        placeholder: nn.Embedding | None = None,
        lengths_per_octave: int = FINE,
    ) -> None:
        self.module: nn.Module = module if module is not None else subject.model
        self._subject, self._samples, self._chat, self._views = subject, samples, chat, views
        self._scales, self._placeholder = scales or {}, placeholder
        self._pad = padding_id(chat.tokenizer)
        self._per_octave = lengths_per_octave
        obstacle = packing_obstacle(subject.model.config, chat.max_length) if packing else ""
        if obstacle:
            logger.info(f"conversations are padded, not packed: {obstacle}")
        self._packs = packing and not obstacle
        self._kept: dict[int, TokenizedConversation] = {}
        self._kept_tokens = 0
        self.counted = TuningCounts()
        self._positions = 0
        self._whole: Whole | None = None

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def useful_share(self) -> float:
        """Share of all positions computed so far that were no padding."""
        return self.counted.tokens / max(1, self._positions)

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self._subject.model.config

    def save_memory(self, activations: Activations, shard: bool, runtime: Runtime) -> None:
        """Recompute activations; share parameters among the processes, the language model's layers one by one.

        The encoder's layers are not shared one by one but with all that is left: a process without images
        does not call them, and the others would wait for it.
        """
        checkpoint_activations(self._subject.model, activations)
        if shard:
            self.module = self._whole = Whole(self.module)
            distributed.shard(self._whole, transformer_blocks(self._subject.decoder)[1], runtime)

    def sample(self, index: int, position: int) -> Sample:
        """A tokenised conversation with its images' numbers."""
        found = self._kept.get(index)
        if found is None:
            found = encode(self._chat, self._samples[index])
            if self._kept_tokens < KEEP_TOKENS:
                self._kept[index] = found
                self._kept_tokens += len(found.input_ids)
        return Sample(found, tuple(self._samples.images_of(index)))

    def arrange(self, samples: Sequence[Sample]) -> tuple[list[list[int]], int]:
        """For each row the places of its samples, in order, and the length of all rows."""
        lengths = [len(sample.encoded.input_ids) for sample in samples]
        if self._packs:
            return into_rows(lengths, self._per_octave)
        return [[place] for place in range(len(samples))], max(lengths)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Rows of token ids and labels, what keeps samples apart in them, and what is known of the images.

        Returns:
            ``input_ids``, ``labels`` and ``document_ids`` (-1 for padding), int64 ``[rows, time]``;
            ``document_ids`` number the samples of a row. Padded batches carry ``attention_mask`` in
            their place. What stands for images follows their order in the rows.
        """
        rows, length = self.arrange(samples)
        batch = fill(samples, rows, length, self._pad)
        if not self._packs:
            batch["attention_mask"] = (batch.pop("document_ids") >= 0).long()
        return batch | self.see([samples[place] for row in rows for place in row])

    def see(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """What a batch carries for the images of its samples, in their order."""
        images = [image for sample in samples for image in sample.images]
        return self._views.collate(images) if images and self._views is not None else {}

    def weight(self, batch: Mapping[str, Tensor]) -> int:
        """The number of tokens the assistant speaks."""
        return count_targets(batch["labels"])

    def loss(self, batch: Mapping[str, Tensor]) -> Loss:
        """Summed cross-entropy of the assistant's tokens."""
        if self._whole is not None:
            return Loss(self._whole(self._together, batch))
        return Loss(self._total(batch))

    def _total(self, batch: Mapping[str, Tensor]) -> Tensor:
        head = output_head(self._subject.model)
        return token_loss(self.last_hidden(batch), batch["labels"], head)

    def _together(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The same where parameters are shared: all processes must have gradients of the same ones.

        One without images gets zeros for what only images pass, if another has any; if none has, these
        parameters stay without a gradient, as in a single process.
        """
        total = self._total(batch)
        placeholders = self._placeholder_embeddings(batch["input_ids"])
        sees = placeholders is not None or "pixels" in batch or "images" in batch
        if distributed.any_process(sees, total.device) and not sees:
            if self._placeholder is not None:
                unseen = self._placeholder.weight
            elif self._views is not None:
                unseen = self._subject.model.model.multi_modal_projector(self._views.some())
            else:
                raise RuntimeError("images without views of them")
            total = total + 0.0 * unseen.float().sum()
        return total

    def last_hidden(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Last hidden states ``[rows, time, width]`` of a batch."""
        ids = batch["input_ids"]
        options: dict[str, Any] = {"use_cache": False}
        if "document_ids" in batch:
            documents = batch["document_ids"]
            used = documents >= 0
            text = self._subject.model.config.get_text_config()
            dtype = self._subject.model.get_input_embeddings().weight.dtype
            mask = document_mask(documents, text._attn_implementation, dtype)
            positions = options["position_ids"] = document_positions(documents)
        else:
            mask = batch["attention_mask"]
            used = mask > 0
            positions = mask.cumsum(1) - 1
        features = self._views.features(batch) if self._views is not None else None
        self._count(batch, used, positions, features)
        placeholder = self._placeholder_embeddings(ids)
        options |= self.row_options(batch)
        return self._subject.hidden(ids, mask, features, placeholder, **options).last_hidden_state

    def _count(
        self, batch: Mapping[str, Tensor], used: Tensor, positions: Tensor, features: Tensor | None
    ) -> None:
        """Note what a batch computes."""
        self._positions += used.numel()
        # The first T odd numbers sum to T squared.
        sums = (used.sum(), ((2 * positions + 1) * used).sum(), (batch["labels"][:, 1:] != IGNORE).sum())
        own, squares, targets = torch.stack(sums).tolist()
        self.counted.tokens += own
        self.counted.squared_lengths += squares
        self.counted.supervised_tokens += targets
        if features is not None:
            images, tokens = features.shape[:2]
            self.counted.projected_patches += images * tokens
            if "pixels" in batch:
                self.counted.encoded_patches += images * tokens
                self.counted.encoded_squared_lengths += images * tokens**2

    def row_options(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """What the model wants to know of a batch beyond tokens and images."""
        return {}

    def _placeholder_embeddings(self, ids: Tensor) -> Tensor | None:
        """The learnt placeholder, once for every image that is not shown; None where there is none."""
        if self._placeholder is None:
            return None
        token = self._chat.tokenizer.convert_tokens_to_ids(self._chat.image_token)
        count = int((ids == token).sum()) // self._placeholder.num_embeddings
        return self._placeholder.weight.repeat(count, 1) if count else None

    def learning_rate_scale(self, name: str) -> float:
        """The multiplier of the part a parameter belongs to."""
        return self._scales.get(self._subject.parameter_part(name), 1.0)


def fill(
    samples: Sequence[Sample], rows: Sequence[Sequence[int]], length: int, pad_token_id: int
) -> dict[str, Tensor]:
    """Lay samples out in rows.

    Args:
        samples: the samples.
        rows: for each row the places of its samples, in order.
        length: positions of a row.
        pad_token_id: fills what is left.

    Returns:
        ``input_ids``, ``labels`` and ``document_ids``, int64 ``[rows, length]``. A sample's first token has
        no label: what comes before it is another sample.
    """
    shape = (len(rows), length)
    batch = {
        "input_ids": torch.full(shape, pad_token_id),
        "labels": torch.full(shape, IGNORE),
        "document_ids": torch.full(shape, -1),
    }
    for row, places in enumerate(rows):
        start = 0
        for number, place in enumerate(places):
            encoded = samples[place].encoded
            stop = start + len(encoded.input_ids)
            batch["input_ids"][row, start:stop] = torch.tensor(encoded.input_ids)
            batch["labels"][row, start + 1 : stop] = torch.tensor(encoded.labels[1:])
            batch["document_ids"][row, start:stop] = number
            start = stop
    return batch


def packing_obstacle(config: Any, longest: int) -> str:
    """Why a model cannot keep the samples of a row apart; empty where it can.

    Args:
        config: the model's configuration.
        longest: the longest sample in tokens.
    """
    text = config.get_text_config()
    if text._attn_implementation == PACKED:
        return ""
    kinds = set(getattr(text, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    recurrent = any(
        hasattr(text, name) for name in ("state_size", "conv_kernel", "mamba_d_state", "rwkv_version")
    )
    if kinds or recurrent:
        return f"'{text.model_type}' carries a state from token to token"
    window = getattr(text, "sliding_window", None)
    if window and window < longest:
        return f"'{text.model_type}' sees {window} tokens back, conversations may have {longest}"
    if getattr(text, "alibi", False) or getattr(text, "position_embedding_type", "absolute") not in (
        "absolute",
        "rotary",
    ):
        return f"'{text.model_type}' derives positions from the row"
    return "" if text.model_type in _MASKED else f"packing is not proven for '{text.model_type}'"


_MASKED = frozenset({"gemma2", "olmo", "cohere", "stablelm"})
"""Families beyond ``PLAIN_SCORES`` that take a mask ``[batch, 1, time, time]`` and ``position_ids``; each tested."""


def encode(chat: ChatTokenizer, conversation: Conversation) -> TokenizedConversation:
    """Tokenise a conversation by the chat template; an error names the conversation."""
    try:
        return chat.encode([(turn.role, turn.text) for turn in conversation.turns])
    except InputError as error:
        raise type(error)(
            error.problems[0].what, where=f"conversation {conversation.id}", hint=error.problems[0].hint
        ) from None


def padding_id(tokenizer: Any) -> int:
    """The id that fills short rows; masked everywhere, so any will do where there is none."""
    found = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return 0 if found is None else found


def compile_decoder(decoder: Any) -> None:
    """Compile a language model; one graph for each row length, of which there are few."""
    import torch

    for name in ("recompile_limit", "cache_size_limit"):
        if hasattr(torch._dynamo.config, name):
            setattr(torch._dynamo.config, name, 64)
    decoder.compile()
