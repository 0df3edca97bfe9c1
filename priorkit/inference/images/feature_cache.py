"""Features cached on disk between runs: one artifact per set, named by everything that decides the features."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorkit.core import artifact
from priorkit.core.errors import InputError
from priorkit.core.inputs import Input
from priorkit.core.process import runtime

if TYPE_CHECKING:
    import torch
    from torch import Tensor

logger = logging.getLogger(__name__)


_FILE = "features.safetensors"
_FORMAT = 2
"""Raised when the same key would give other bytes."""


def cache_folder() -> Path:
    """The default folder of cached features: ``$PRIORKIT_CACHE/features``, in the user's cache folder."""
    configured = os.environ.get("PRIORKIT_CACHE")
    base = (
        Path(configured) if configured else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "priorkit"
    )
    return base.expanduser() / "features"


def image_status_folder() -> Path:
    """The folder of cached image statuses; see :mod:`priorkit.data.images.image_check`."""
    return cache_folder().with_name("images")


def feature_versions() -> dict[str, str | None]:
    """Versions of the libraries that decide the bytes of features."""
    versions = runtime.versions()
    return {name: versions.get(name) for name in ("torch", "transformers", "timm")}


def input_digest(item: Input) -> str:
    """The digest that identifies an encoder or a source of images in a cache key."""
    return item.content_key()


@dataclass(frozen=True)
class FeatureCache:
    """One set of cached features.

    Attributes:
        folder: folder of all cached features.
        key: JSON-compatible values that decide the features: digests of the inputs, precision, device ...;
            library versions are added.
    """

    folder: Path
    key: dict[str, Any]

    @property
    def path(self) -> Path:
        """The artifact's folder, named by the digest of the key."""
        text = json.dumps({"form": _FORMAT, **self.key, **feature_versions()}, sort_keys=True)
        return self.folder / hashlib.sha256(text.encode()).hexdigest()[:32]

    def read(self) -> dict[str, Tensor] | None:
        """The cached tensors; None without any, or with a warning if they are damaged."""
        if not artifact.is_artifact(self.path):
            return None
        from safetensors.torch import load_file

        try:
            stored = artifact.open_artifact(self.path)
            artifact.verify_files(self.path, stored.manifest.files)
        except InputError as error:
            logger.warning(f"cached features cannot be used: {error.what} ({self.path})")
            return None
        return load_file(self.path / _FILE)

    def mapped_zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """Zeros in a file of the cache's folder that is mapped into memory, and removed with the last use.

        None where the disk has no room or cannot be written.
        """
        import torch

        size = math.prod(shape)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(prefix="features-", dir=self.folder) as file:
                # Reserved: a page that finds no room when it is written back would kill the process.
                os.posix_fallocate(file.fileno(), 0, size * dtype.itemsize)
                return torch.from_file(file.name, shared=True, size=size, dtype=dtype).view(shape)
        except (AttributeError, OSError) as error:
            logger.warning(f"the features are kept in memory: {error}")
            return None

    def write(self, tensors: dict[str, Tensor]) -> None:
        """Cache the tensors; a full or read-only disk costs a warning, not the run."""
        from safetensors.torch import save_file

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix="partial-", dir=self.folder))
            try:
                save_file({name: value.contiguous() for name, value in tensors.items()}, partial / _FILE)
                artifact.write_manifest(
                    partial, kind="features", step="features", settings=self.key, inputs=(), metrics={},
                    versions=runtime.versions(), seed=None, cost={},
                )  # fmt: skip
                shutil.rmtree(self.path, ignore_errors=True)
                partial.rename(self.path)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        except OSError as error:
            logger.warning(f"the features are not cached: {error.strerror} ({self.folder})")
