"""The command that uploads artifacts to the Hugging Face hub."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from priorkit.cli.artifacts import ArtifactPath, Json, open_finished
from priorkit.cli.output import print_result
from priorkit.core import artifact
from priorkit.core.errors import ResourceError, UsageError
from priorkit.core.input_files import CARD, MANIFEST

MODELS = ("llm", "mllm", "encoder", "adapter", "tokenizer")
"""Kinds that become model repositories; all others become data sets."""

_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def push(
    path: ArtifactPath,
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Repository on the hub; made where it is missing.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    as_json: Json = False,
) -> None:
    """Upload a finished artifact to the Hugging Face hub, with its card and manifest.

    Models, adapters and tokenizers become model repositories, everything else data sets. Every file is checked
    against the manifest before. Where to and as whom is the hub client's matter: HF_ENDPOINT, HF_TOKEN, `hf auth login`.
    """
    if not _NAME.fullmatch(repository):
        raise UsageError(f"expected OWNER/NAME, got '{repository}'", where="OWNER/NAME")
    opened = open_finished(path)
    artifact.verify_files(opened.path, opened.manifest.files)
    artifact.warn_of_added_files(opened)
    kind = "model" if opened.kind in MODELS else "dataset"
    # What was added later is not the artifact's, and may be anything.
    known = [*opened.manifest.files, MANIFEST]
    if (opened.path / CARD).is_file() and CARD not in known:
        known.append(CARD)
    url, commit = _upload(opened.path, repository, kind, known, private)
    if as_json:
        print_result(
            json.dumps(
                {"url": url, "commit": commit, "repository": repository, "type": kind, "files": len(known)}
            )
        )
    else:
        print_result(url)


def _upload(folder: Path, repository: str, kind: str, names: list[str], private: bool) -> tuple[str, str]:
    """Create the repository where it is missing, and commit the files.

    Returns:
        Its address and the commit.

    Raises:
        ResourceError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="priorkit")
    operations: Any = [CommitOperationAdd(name, str(folder / name)) for name in names]
    try:
        url = api.create_repo(repository, repo_type=kind, private=private or None, exist_ok=True)
        made = api.create_commit(
            repository, operations, commit_message="Upload a priorkit artifact", repo_type=kind
        )
    except Exception as error:
        # The client's errors of the network derive from its HTTP library's, whose name depends on its version.
        if not isinstance(error, OSError | ValueError) and not type(error).__module__.startswith("httpx"):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ResourceError(
            f"the hub cannot take it: {reason}",
            where=repository,
            hint="log in with `hf auth login`, or set HF_TOKEN; HF_HUB_OFFLINE must not be set",
        ) from None
    return str(url), str(made.oid)
