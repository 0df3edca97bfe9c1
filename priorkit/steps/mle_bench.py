"""Build a Multi-Level Existence Bench from annotated images: what is small, what is large in the image?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import batched
from pathlib import Path
from typing import Any, ClassVar

from priorkit.core.artifact import Artifact
from priorkit.core.errors import InputError
from priorkit.core.inputs import Input
from priorkit.core.lifecycle import Plan, Work, produce
from priorkit.core.settings import Count, StepSettings, argument, option
from priorkit.data.rejects import Rejects
from priorkit.evals.annotated import find_annotations, read_annotated
from priorkit.evals.existence import (
    BINS,
    Question,
    Synonyms,
    build,
    choose_targets,
    counts,
    read_synonyms,
)
