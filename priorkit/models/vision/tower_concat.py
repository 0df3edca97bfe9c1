"""Several image towers as the one that transformers' LLaVA holds: their patches side by side.

Cambrian-1 (Tong et al. 2024, section 3.2) calls it concatenation: every tower sees the image at the
resolution it was trained at, the patches of all are brought to one grid, and their features are set side by
side along the channels. Importing this module makes the type known to transformers; without it
``from_pretrained`` says that it does not know ``priorkit_several_towers``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from priorkit.models.vision.encoder import Encoder
from priorkit.models.vision.image_tower import SEVERAL_TOWERS, ImageTower, patch_side, prepared_size
from priorkit.models.vision.preprocessing import Preprocessing


class SeveralTowersConfig(PreTrainedConfig):
    """Configuration of :class:`SeveralTowersModel`.

    Attributes:
        towers: for each tower ``config`` (its own, as a mapping), ``size`` (height and width in pixels that it
            is shown), ``mean`` and ``std`` (normalisation of values from 0 to 1, per channel), ``prefix``
            (tokens before its patches).
        image_size: side of the images that come in, the first tower's.
        patch_size: side of a patch of the first tower, whose grid is that of the features.
        hidden_size: sum of the towers' widths.
        num_hidden_layers: those of the shallowest tower; hidden states are counted from the end.
    """

    model_type = SEVERAL_TOWERS

    towers: Any = None
    image_size: int = 224
    patch_size: int = 14
    hidden_size: int = 0
    num_hidden_layers: int = 0
    num_channels: int = 3

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.towers is None:
            self.towers = []

    def tower_configs(self) -> list[Any]:
        """The towers' own configurations, built anew."""
        made: list[Any] = []
        for own in self.towers:
            values = dict(own["config"])
            made.append(CONFIG_MAPPING[values.pop("model_type")](**values))
        return made


class SeveralTowersModel(PreTrainedModel):
    """Image towers that look at the same image; their patches' features lie side by side.

    What comes in is normalised for the first tower. For each further one it is brought back to 0..1,
    resized (bicubic, antialiased), and normalised as that tower was trained. Class tokens and registers are
    left out, and grids of another size are brought to the first tower's (bilinear).
    """

    config_class = SeveralTowersConfig
    main_input_name = "pixel_values"
    input_modalities = "image"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: SeveralTowersConfig) -> None:
        super().__init__(config)
        attention = config._attn_implementation
        options: dict[str, Any] = {"attn_implementation": attention} if attention else {}
        self.towers = nn.ModuleList(AutoModel.from_config(own, **options) for own in config.tower_configs())
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | int | list[int] | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> Any:
        """The features of all towers.

        Args:
            pixel_values: as the first tower reads them, ``[images, 3, image_size, image_size]``.
            output_hidden_states: whether to return them; newer versions of transformers name those wanted.
            return_dict: whether to return an output object; a tuple where False.

        Returns:
            ``last_hidden_state`` and ``hidden_states``, all ``[images, patches, hidden_size]``; the state
            with number ``-k`` holds each tower's own state ``-k``. ``None`` stands for those not asked for.
        """
        if output_hidden_states is None:
            output_hidden_states = bool(self.config.output_hidden_states)
        count = self.config.num_hidden_layers + 1
        wanted = _from_the_end(output_hidden_states, count)
        outputs = [
            tower(pixel_values=self.shown(pixel_values, place), output_hidden_states=wanted, return_dict=True)
            for place, tower in enumerate(self.towers)
        ]
        last = self._side_by_side([output.last_hidden_state for output in outputs])
        states = None
        if output_hidden_states is not False:
            states = tuple(
                self._side_by_side([output.hidden_states[place - count] for output in outputs])
                for place in range(count)
            )
        found = BaseModelOutputWithPooling(last_hidden_state=last, hidden_states=cast("Any", states))
        return found.to_tuple() if return_dict is False else found

    def shown(self, pixel_values: Tensor, place: int) -> Tensor:
        """What one of the towers is shown of images that are normalised for the first.

        Args:
            pixel_values: ``[images, 3, image_size, image_size]``.
            place: which tower.

        Returns:
            ``[images, 3, height, width]`` in the dtype that came in.
        """
        if place == 0:
            return pixel_values
        first, own = self.config.towers[0], self.config.towers[place]

        def channels(numbers: Sequence[float]) -> Tensor:
            return torch.tensor(numbers, dtype=torch.float32, device=pixel_values.device).view(3, 1, 1)

        plain = pixel_values.float() * channels(first["std"]) + channels(first["mean"])
        if tuple(plain.shape[-2:]) != tuple(own["size"]):
            plain = functional.interpolate(plain, tuple(own["size"]), mode="bicubic", antialias=True)
            plain = plain.clamp(0, 1)
        return ((plain - channels(own["mean"])) / channels(own["std"])).to(pixel_values.dtype)

    def _side_by_side(self, states: Sequence[Tensor | None]) -> Tensor | None:
        """One state ``[images, tokens, width]`` of each tower on one grid, ``[images, patches, sum of widths]``."""
        grids = [self._grid(place) for place in range(len(states))]
        found: list[Tensor] = []
        for state, grid, own in zip(states, grids, self.config.towers, strict=True):
            if state is None:
                return None
            patches = state[:, own["prefix"] :]
            if grid != grids[0]:
                map_BCHW = patches.transpose(1, 2).unflatten(2, grid)
                map_BCHW = functional.interpolate(map_BCHW, grids[0], mode="bilinear", align_corners=False)
                patches = map_BCHW.flatten(2).transpose(1, 2)
            found.append(patches)
        return torch.cat(found, dim=-1)

    def _grid(self, place: int) -> tuple[int, int]:
        """Rows and columns of a tower's patches."""
        height, width = self.config.towers[place]["size"]
        side = patch_side(self.towers[place].config)
        return height // side, width // side


def _from_the_end(selection: bool | int | list[int], count: int) -> Any:
    """Numbers of hidden states counted from the end, where towers of different depth agree."""
    if isinstance(selection, bool):
        return selection
    if isinstance(selection, int):
        return selection if selection < 0 else selection - count
    return [own if own < 0 else own - count for own in selection]


def join_towers(towers: Sequence[ImageTower]) -> ImageTower:
    """Set image towers side by side; images are prepared by the first one's processor.

    Args:
        towers: two or more, as ``image_tower`` takes them out of encoders.
    """
    entries: list[dict[str, Any]] = []
    for tower in towers:
        prepare = Preprocessing(tower.image_processor)
        black, white = (
            prepare.normalise(torch.full((3, 1, 1), level, dtype=torch.uint8)).double().flatten()
            for level in (0, 255)
        )
        values = tower.config.to_dict()
        for name in ("transformers_version", "_name_or_path"):  # equal models stay equal bytes
            values.pop(name, None)
        entries.append(
            {
                "config": values,
                "size": list(prepared_size(Encoder(tower.model, tower.image_processor))),
                "mean": _rounded(-black / (white - black)),
                "std": _rounded(1 / (white - black)),
                "prefix": tower.prefix,
            }
        )
    first = towers[0]
    config = SeveralTowersConfig(
        towers=entries,
        image_size=entries[0]["size"][0],
        patch_size=patch_side(first.config),
        hidden_size=sum(int(tower.config.hidden_size) for tower in towers),
        num_hidden_layers=min(int(tower.config.num_hidden_layers) for tower in towers),
    )
    model = SeveralTowersModel(config)
    for own, tower in zip(model.towers, towers, strict=True):
        # A ViT's pooler may be there without weights; nothing reads it.
        own.load_state_dict(tower.model.state_dict(), strict=False)
    return ImageTower(model.eval(), config, first.image_processor, first.patches, 0)


def _rounded(values: Tensor) -> list[float]:
    """Numbers without the noise of single precision."""
    return [round(value, 7) for value in values.tolist()]


AutoConfig.register(SEVERAL_TOWERS, SeveralTowersConfig, exist_ok=True)
AutoModel.register(SeveralTowersConfig, SeveralTowersModel, exist_ok=True)
