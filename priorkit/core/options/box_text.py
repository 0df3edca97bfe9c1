"""Options for how boxes are written in text, the same in every step that writes or reads such text."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from priorkit.core.boxes import BOX_NOTATIONS, LOCATION_TOKENS, BoxFormatName, BoxWriter
from priorkit.core.options.settings import Settings, option
from priorkit.core.options.specs import changed
from priorkit.core.options.values import Count


class BoxTextSettings(Settings):
    """How boxes are written in text."""

    group: ClassVar[str] = "boxes in text"

    box_format: BoxFormatName = option(
        "decimals",
        "How boxes are written: "
        + "; ".join(
            f"{name} ({notation.published}), {notation.summary}" for name, notation in BOX_NOTATIONS.items()
        )
        + ".",
        advanced=True,
    )
    box_decimals: int = option(3, "Decimals of a corner with --box-format decimals.", ge=1, advanced=True)
    box_bins: Count = option(
        LOCATION_TOKENS,
        "Round corners to this many-ths of a side with --box-format location-tokens, so that one more token than that "
        "does; 1000 for all tokens, unrounded.",
        metavar="N",
        ge=2,
        le=LOCATION_TOKENS,
        advanced=True,
    )

    @model_validator(mode="after")
    def _box_options_have_an_effect(self) -> BoxTextSettings:
        for name, user in (("box_decimals", "decimals"), ("box_bins", "location-tokens")):
            if self.box_format != user and changed(self, [name]):
                raise ValueError(f"{name} only has an effect with box_format {user}, not {self.box_format}")
        return self

    @property
    def box_writer(self) -> BoxWriter:
        """Writes boxes as these options say."""
        return BoxWriter(self.box_format, self.box_decimals, self.box_bins)
