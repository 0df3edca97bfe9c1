"""Options of ``tune`` that only LLaVA takes: none."""

from __future__ import annotations

from priorkit.architectures.base import TuneOptions

OPTIONS = TuneOptions()
