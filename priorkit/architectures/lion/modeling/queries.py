"""The Q-Former branch: a few query tokens that read the image with the question in mind.

The Q-Former itself is transformers' ``InstructBlipQFormerModel``. It reads the question's token ids of the
language model's own tokenizer, so that no second vocabulary travels along.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import InstructBlipQFormerConfig, InstructBlipQFormerModel
from transformers import initialization as init

from priorkit.architectures.lion.modeling.configuration import LionConfig


def qformer_config(config: LionConfig) -> InstructBlipQFormerConfig:
    """The Q-Former's configuration; its vocabulary covers the language model's and its positions the question."""
    return InstructBlipQFormerConfig(
        **{
            "vocab_size": config.text_config.vocab_size,
            "max_position_embeddings": config.instruction_length,
            "pad_token_id": None,
            **config.qformer,
            "encoder_hidden_size": config.vision_config.hidden_size,
        }
    )


class QueryBranch(nn.Module):
    """LayerNorm of the encoder's last block, the Q-Former with its queries, one linear layer."""

    def __init__(self, config: LionConfig) -> None:
        super().__init__()
        inner = qformer_config(config)
        self.norm = nn.LayerNorm(config.vision_config.hidden_size)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.queries, inner.hidden_size))
        self.qformer = InstructBlipQFormerModel(inner)
        self.projection = nn.Linear(inner.hidden_size, config.text_config.hidden_size)
        self._range = inner.initializer_range

    def reset(self) -> None:
        """Queries normal, as in BLIP-2 before its training."""
        init.normal_(self.query_tokens, std=self._range)

    def forward(self, image_NSC: Tensor, ids_NL: Tensor | None, mask_NL: Tensor | None) -> Tensor:
        """Visual tokens ``[images, queries, width of the language model]``.

        Args:
            image_NSC: raw output of the encoder's last block, ``[images, positions, width]``.
            ids_NL: token ids of the question to each image, or None for none.
            mask_NL: 0 at padding.
        """
        image = self.norm(image_NSC)
        queries = self.query_tokens.expand(len(image), -1, -1)
        mask = torch.ones(queries.shape[:2], dtype=torch.long, device=image.device)
        if ids_NL is not None:
            text_mask = torch.ones_like(ids_NL) if mask_NL is None else mask_NL
            mask = torch.cat([mask, text_mask.to(mask)], dim=1)
        output = self.qformer(
            input_ids=ids_NL,
            attention_mask=mask,
            query_embeds=queries.to(image.dtype),
            encoder_hidden_states=image,
        )
        return self.projection(output.last_hidden_state[:, : queries.shape[1]])

    @torch.no_grad()
    def rescale(self, factor: Tensor) -> None:
        """Multiply the visual tokens by a factor."""
        self.projection.weight.mul_(factor)
        self.projection.bias.mul_(factor)
