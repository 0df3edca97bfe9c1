"""The option of steps that compare single patches with texts."""

from __future__ import annotations

from typing import ClassVar

from priorkit.core.errors import Problems
from priorkit.core.options.settings import Settings, option


class PatchSettings(Settings):
    """Which patches are compared with texts."""

    group: ClassVar[str] = "regions"

    region_layer: int = option(
        -2,
        "Hidden state whose patches are matched with names: the one that align --feature-layer reads.",
        advanced=True,
    )


def check_region_layer(settings: PatchSettings, layers: int, problems: Problems) -> None:
    """Check that an image tower has the hidden state.

    Args:
        settings: with the layer.
        layers: number of layers of the image tower.
        problems: where a problem goes.
    """
    if not -layers - 1 <= settings.region_layer <= layers:
        problems.add(
            f"the image tower has {layers} layers; hidden states are numbered {-layers - 1} to {layers}",
            where=f"--region-layer {settings.region_layer}",
        )
