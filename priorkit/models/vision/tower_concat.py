"""Tower concat: several image towers as one, their patch features concatenated along the channels.

As in Cambrian-1 (Tong et al. 2024, section 3.2), every tower gets the image at the resolution it was trained
at, and all patch features are interpolated to one grid. Importing this module registers the model type with
transformers; without it, ``from_pretrained`` does not know ``priorkit_several_towers``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from priorkit.core.errors import UsageError
from priorkit.models.vision.encoder import Encoder
from priorkit.models.vision.image_tower import TOWER_CONCAT, ImageTower, patch_side
from priorkit.models.vision.preprocessing import Preprocessing


class TowerConcatConfig(PreTrainedConfig):
    """Configuration of :class:`TowerConcatModel`.

    Attributes:
        towers: for each tower ``config`` (a mapping), ``size`` (height and width of its images in pixels),
            ``mean`` and ``std`` (normalization of values from 0 to 1, per channel), ``prefix`` (tokens before
            its patches).
        image_size: side of the input images, which is the first tower's.
        patch_size: side of the square of an image that a feature stands for: the first tower's patches, or where the
            features have another grid the number by which a processor counts them.
        grid: rows and columns of the features; empty for the first tower's.
        hidden_size: sum of the towers' widths.
        num_hidden_layers: of the shallowest tower; hidden states are counted from the end.
    """

    model_type = TOWER_CONCAT

    towers: Any = None
    image_size: int = 224
    patch_size: int = 14
    hidden_size: int = 0
    num_hidden_layers: int = 0
    num_channels: int = 3
    grid: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.towers is None:
            self.towers = []
        if self.grid is None:
            self.grid = []

    def tower_configs(self) -> list[Any]:
        """The towers' configurations as objects."""
        values = [dict(tower["config"]) for tower in self.towers]
        return [CONFIG_MAPPING[config.pop("model_type")](**config) for config in values]


class TowerConcatModel(PreTrainedModel):
    """Image towers that encode the same image; their patch features are concatenated.

    The input is normalized for the first tower. For each further tower it is scaled back to 0..1, resized
    (bicubic, antialiased) and normalized as in that tower's training. Class tokens and registers are dropped,
    and features are interpolated to the first tower's grid, or that of the configuration (bilinear).
    """

    config_class = TowerConcatConfig
    main_input_name = "pixel_values"
    input_modalities = "image"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: TowerConcatConfig) -> None:
        super().__init__(config)
        attention = config._attn_implementation
        options: dict[str, Any] = {"attn_implementation": attention} if attention else {}
        self.towers = nn.ModuleList(
            AutoModel.from_config(tower, **options) for tower in config.tower_configs()
        )
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
            pixel_values: normalized for the first tower, ``[images, 3, image_size, image_size]``.
            output_hidden_states: whether to return them; newer versions of transformers pass their numbers.
            return_dict: whether to return an output object; False for a tuple.

        Returns:
            ``last_hidden_state`` and ``hidden_states``, all ``[images, patches, hidden_size]``; state ``-k``
            concatenates the towers' states ``-k``. States that were not requested are None.
        """
        if output_hidden_states is None:
            output_hidden_states = bool(self.config.output_hidden_states)
        count = self.config.num_hidden_layers + 1
        selection = _counted_from_end(output_hidden_states, count)
        outputs = [
            tower(
                pixel_values=self.tower_pixels(pixel_values, index),
                output_hidden_states=selection,
                return_dict=True,
            )
            for index, tower in enumerate(self.towers)
        ]
        last = self._concatenated([output.last_hidden_state for output in outputs])
        states = None
        if output_hidden_states is not False:
            states = tuple(
                self._concatenated([output.hidden_states[index - count] for output in outputs])
                for index in range(count)
            )
        output = BaseModelOutputWithPooling(last_hidden_state=last, hidden_states=cast("Any", states))
        return output.to_tuple() if return_dict is False else output

    def tower_pixels(self, pixel_values: Tensor, index: int) -> Tensor:
        """The pixels for one of the towers, from images that are normalized for the first.

        Args:
            pixel_values: ``[images, 3, image_size, image_size]``.
            index: index of the tower.

        Returns:
            ``[images, 3, height, width]`` in the dtype of ``pixel_values``.
        """
        if index == 0:
            return pixel_values
        first, tower = self.config.towers[0], self.config.towers[index]

        def channels(numbers: Sequence[float]) -> Tensor:
            return torch.tensor(numbers, dtype=torch.float32, device=pixel_values.device).view(3, 1, 1)

        plain = pixel_values.float() * channels(first["std"]) + channels(first["mean"])
        if tuple(plain.shape[-2:]) != tuple(tower["size"]):
            plain = functional.interpolate(plain, tuple(tower["size"]), mode="bicubic", antialias=True)
            plain = plain.clamp(0, 1)
        return ((plain - channels(tower["mean"])) / channels(tower["std"])).to(pixel_values.dtype)

    def _concatenated(self, states: Sequence[Tensor | None]) -> Tensor | None:
        """One state ``[images, tokens, width]`` of each tower, on one grid: ``[images, patches, sum of widths]``."""
        grids = [self._grid(index) for index in range(len(states))]
        wanted = tuple(self.config.grid) or grids[0]
        on_grid: list[Tensor] = []
        for state, grid, tower in zip(states, grids, self.config.towers, strict=True):
            if state is None:
                return None
            patches = state[:, tower["prefix"] :]
            if grid != wanted:
                map_BCHW = patches.transpose(1, 2).unflatten(2, grid)
                map_BCHW = functional.interpolate(map_BCHW, wanted, mode="bilinear", align_corners=False)
                patches = map_BCHW.flatten(2).transpose(1, 2)
            on_grid.append(patches)
        return torch.cat(on_grid, dim=-1)

    def _grid(self, index: int) -> tuple[int, int]:
        """Rows and columns of patches of a tower."""
        height, width = self.config.towers[index]["size"]
        side = patch_side(self.towers[index].config)
        return height // side, width // side


def _counted_from_end(selection: bool | int | list[int], count: int) -> Any:
    """Numbers of hidden states counted from the end, where they match in towers of different depth."""
    if isinstance(selection, bool):
        return selection
    if isinstance(selection, int):
        return selection if selection < 0 else selection - count
    return [number if number < 0 else number - count for number in selection]


def concat_towers(towers: Sequence[ImageTower], image_tokens: int | None = None) -> ImageTower:
    """Combine image towers into one; the first one's processor prepares the images.

    Args:
        towers: one or more, from ``extract_image_tower``.
        image_tokens: features of an image, a square number, to which they are interpolated; None for the first
            tower's patches.

    Raises:
        UsageError: a processor cannot count that many.
    """
    entries: list[dict[str, Any]] = []
    for tower in towers:
        # These are values, also where models are built on the meta device.
        with torch.device("cpu"):
            preprocessing = Preprocessing(tower.image_processor)
            black, white = (
                preprocessing.normalize(torch.full((3, 1, 1), level, dtype=torch.uint8)).double().flatten()
                for level in (0, 255)
            )
        values = tower.config.to_dict()
        for name in ("transformers_version", "_name_or_path"):  # equal models give equal bytes
            values.pop(name, None)
        entries.append(
            {
                "config": values,
                "size": list(Encoder(tower.model, tower.image_processor).prepared_size()),
                "mean": _rounded(-black / (white - black)),
                "std": _rounded(1 / (white - black)),
                "prefix": tower.prefix,
            }
        )
    first = towers[0]
    side = patch_side(first.config)
    grid: list[int] = []
    if image_tokens is not None:
        grid, side = _other_grid(entries[0]["size"], image_tokens)
    config = TowerConcatConfig(
        towers=entries,
        grid=grid,
        image_size=entries[0]["size"][0],
        patch_size=side,
        hidden_size=sum(int(tower.config.hidden_size) for tower in towers),
        num_hidden_layers=min(int(tower.config.num_hidden_layers) for tower in towers),
    )
    model = TowerConcatModel(config)
    for module, tower in zip(model.towers, towers, strict=True):
        # A ViT's pooler may lack weights; nothing reads it.
        module.load_state_dict(tower.model.state_dict(), strict=False)
    return ImageTower(model.eval(), config, first.image_processor, image_tokens or first.patches, 0)


def _other_grid(size: Sequence[int], image_tokens: int) -> tuple[list[int], int]:
    """A square grid of features, and the patch side by which LLaVA's processor counts as many.

    The processor divides the image's sides by it and rounds down: 224 pixels by 9 give 24.
    """
    side = math.isqrt(image_tokens)
    counted = min(size) // side
    if side * side != image_tokens or not counted or any(length // counted != side for length in size):
        raise UsageError(
            f"an image of {' x '.join(map(str, size))} pixels cannot be counted as {image_tokens} features",
            where="--image-tokens",
            hint="choose another square number, or --resample positions",
        )
    return [side, side], counted


def _rounded(values: Tensor) -> list[float]:
    """Numbers rounded to what single precision can hold."""
    return [round(value, 7) for value in values.tolist()]


AutoConfig.register(TOWER_CONCAT, TowerConcatConfig, exist_ok=True)
AutoModel.register(TowerConcatConfig, TowerConcatModel, exist_ok=True)
