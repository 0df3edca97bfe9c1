"""Features kept between runs: an artifact of their own, named by what they were computed from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from priorkit.core import artifact, runtime
from priorkit.core.errors import InputError

logger = logging.getLogger(__name__)

_FILE = "features.safetensors"
_FORM = 2
"""Raised when the same request would give other bytes."""


def cache_folder() -> Path:
    """Where features are kept unless told otherwise: ``$PRIORKIT_CACHE/features``, in the user's cache folder."""
    own = os.environ.get("PRIORKIT_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "priorkit"
    return base.expanduser() / "features"


def image_status_folder() -> Path:
    """Where the statuses of checked images are kept; see :mod:`priorkit.data.images.image_check`."""
    return cache_folder().with_name("images")


def decisive_versions() -> dict[str, str | None]:
    """Versions of the libraries that decide the bytes of features."""
    versions = runtime.versions()
    return {name: versions.get(name) for name in ("torch", "transformers", "timm")}


@dataclass(frozen=True)
class FeatureStore:
    """One set of features on disk.

    Attributes:
        folder: where all features are kept.
        request: what they depend on: digests of inputs, precision, device; versions are added.
    """

    folder: Path
    request: dict[str, Any]

    @property
    def path(self) -> Path:
        """The artifact's folder, named by the digest of the request."""
        text = json.dumps({"form": _FORM, **self.request, **decisive_versions()}, sort_keys=True)
        return self.folder / hashlib.sha256(text.encode()).hexdigest()[:32]

    def read(self) -> dict[str, Tensor] | None:
        """The tensors, or None where there are none; damaged ones are told of and passed over."""
        if not artifact.is_artifact(self.path):
            return None
        from safetensors.torch import load_file

        try:
            found = artifact.open_artifact(self.path)
            artifact.verify_files(self.path, found.manifest.files)
        except InputError as error:
            logger.warning(f"kept features cannot be used: {error.problems[0].what} ({self.path})")
            return None
        return load_file(self.path / _FILE)

    def write(self, tensors: dict[str, Tensor]) -> None:
        """Keep the tensors; where the disk does not let us, say so and go on."""
        from safetensors.torch import save_file

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix="partial-", dir=self.folder))
            try:
                save_file({name: value.contiguous() for name, value in tensors.items()}, partial / _FILE)
                artifact.write_manifest(
                    partial, kind="features", step="features", settings=self.request, inputs=(), metrics={},
                    versions=runtime.versions(), seed=None, cost={},
                )  # fmt: skip
                shutil.rmtree(self.path, ignore_errors=True)
                partial.rename(self.path)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        except OSError as error:
            logger.warning(f"the features are not kept: {error.strerror} ({self.folder})")
