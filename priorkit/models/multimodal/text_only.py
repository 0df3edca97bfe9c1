"""A language model with the interface of a multimodal model, for blind tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from priorkit.models.multimodal.embeddings import replace_embeddings


@dataclass
class TextOnlyModel:
    """A causal LM as a :class:`priorkit.models.multimodal.base.TrainableModel`.

    Attributes:
        model: the causal LM.
        image_token_id: the token whose embeddings :meth:`hidden` replaces; None for no such token.
    """

    model: Any
    image_token_id: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def decoder(self) -> Any:
        """The language model without its head."""
        return self.model.get_decoder()

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        features: Tensor | None,
        placeholder: Tensor | None = None,
        image_positions: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """The decoder's output; see :class:`priorkit.models.multimodal.base.TrainableModel`.

        ``features`` is not used, as there are no images.
        """
        if placeholder is None:
            return self.decoder(input_ids=input_ids, attention_mask=attention_mask, **options)
        embedded = self.model.get_input_embeddings()(input_ids)
        places = input_ids == self.image_token_id
        embedded = replace_embeddings(embedded, places, placeholder, image_positions)
        return self.decoder(inputs_embeds=embedded, attention_mask=attention_mask, **options)

    def parameter_part(self, name: str) -> str:
        """``placeholder`` for the embeddings of withheld images, ``llm`` for the rest."""
        return "placeholder" if "placeholder" in name.split(".") else "llm"
