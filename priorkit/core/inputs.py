"""Inputs: what a path or hub id given by the user is, whether it is complete, and its digest.

An input is an artifact, a part of one (a file or folder below it), a file or folder of the user,
or an entry of the Hugging Face hub. Artifacts are checked against their manifest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
import typing
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

from priorkit.core import artifact
from priorkit.core.artifact import Artifact
from priorkit.core.errors import InputError, nearest
from priorkit.core.input_files import PARTIAL, list_files
from priorkit.core.manifest import FileRecord, InputRecord
from priorkit.core.remote_files import cache_folder, fetch, is_address

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+(?:/[\w.-]+)*)?(#\S+)?")
"""``owner/name``, a revision behind ``@`` (``refs/convert/parquet`` too), globs of the files wanted behind ``#``, separated by commas."""

_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
_FETCHED: dict[str, tuple[str, ...] | None] = {
    "model": (*_SMALL_FILES, "*.safetensors"),
    "weights": (*_SMALL_FILES, "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "open_clip_*.safetensors"),
    "dataset": None,
}
"""What is fetched of each kind of hub entry; all files where None."""

IMAGES_OF = "images of "
"""Begins the label of the files that an input's rows name."""

HASH_IN_CHECK_UP_TO = 64 << 20
"""``--check`` compares sizes of all files and the content of those up to this many bytes."""


@dataclass(frozen=True, slots=True)
class Input:
    """A resolved input.

    Attributes:
        setting: which setting named it.
        given: the text the user gave.
        path: where it is on this machine.
        kind: the artifact's kind, ``part of KIND`` below one, or ``file``, ``directory``, ``hub``, ``remote``;
            ``files`` for some of a folder.
        owner: the artifact it is or belongs to; None for the user's files.
        revision: the hub revision (commit) where it came from the hub; a digest of versions where it is remote.
        files: sorted names below the path, where it is not all of a folder that counts: the images that a table names.
        named: the files that its rows name, where they are not among its own.
    """

    setting: str
    given: str
    path: Path
    kind: str
    owner: Artifact | None = None
    revision: str = ""
    files: Collection[str] = ()
    named: Input | None = None

    def recorded(self) -> dict[str, FileRecord]:
        """The manifest's records of the files that this input is; none for the user's own."""
        if self.owner is None:
            return {}
        below = self.path.resolve().relative_to(self.owner.path.resolve()).as_posix()
        files = self.owner.manifest.files
        if below == ".":
            return files
        return {name: files[name] for name in files if name == below or name.startswith(below + "/")}

    def verify(self, thorough: bool = True) -> None:
        """Check the files against the manifest, and warn of files added to it; the user's files have none and pass.

        Raises:
            InputError: naming every file that is missing or differs.
        """
        if self.owner is not None:
            artifact.verify_files(self.owner.path, self.recorded(), None if thorough else HASH_IN_CHECK_UP_TO)
            if self.kind == self.owner.kind:
                artifact.warn_of_added_files(self.owner)

    def stamp(self) -> str:
        """A digest of names, sizes and times of the user's files; empty for artifacts."""
        if self.owner is not None or self.revision:
            return ""
        digest = hashlib.sha256()
        for name, stat in _stats(self.path, self.files):
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def digest(self) -> str:
        """The digest of the content; from the manifest where there is one, otherwise by reading the files."""
        if self.owner is not None:
            return artifact.digest_of(self.recorded())
        if self.revision:
            return self.revision
        if self.path.is_file():
            return artifact.hash_file(self.path).sha256
        names = self.files or list_files(self.path).names
        return artifact.digest_of_files(self.path, names)

    def content_key(self) -> str:
        """The digest of all that is read through this input, files that its rows name included: a key of caches."""
        digest = self.digest()
        return digest if self.named is None else f"{digest}+{self.named.digest()}"

    def quick_key(self) -> str:
        """As :meth:`content_key`, by names, sizes and times where there is no recorded digest."""
        key = self.stamp() or self.digest()
        return key if self.named is None else f"{key}+{self.named.stamp()}"

    def record(self, known: InputRecord | None = None) -> InputRecord:
        """The input as the manifest holds it; a known record with the same stamp saves reading the files."""
        stamp = self.stamp()
        if known is not None and stamp and stamp == known.stamp:
            digest = known.digest
        else:
            digest = self.digest()
        return InputRecord(setting=self.setting, path=self.given, kind=self.kind, digest=digest, stamp=stamp)


def _stats(path: Path, names: Collection[str] = ()) -> Iterator[tuple[str, os.stat_result]]:
    if path.is_file():
        yield path.name, path.stat()
        return
    for name in names or list_files(path).names:
        yield name, (path / name).stat()


@dataclass(frozen=True, slots=True)
class HubSubset:
    """Which part of a hub dataset is needed.

    Attributes:
        name: the subset (configuration); None for the only one, or the default.
        option: what chooses it, for messages.
    """

    name: str | None
    option: str


def resolve(
    given: str,
    setting: str,
    accepts: Sequence[str],
    hub: str = "",
    label: str = "",
    subset: HubSubset | None = None,
) -> Input:
    """Find out what an input is.

    Args:
        given: a path, or a hub id (``owner/name`` or ``owner/name@revision``) where ``hub`` allows it.
        setting: the setting that names it.
        accepts: the kinds of artifact that fit; the user's files always pass here and are
            checked by whoever reads them.
        hub: ``model``, ``weights`` (a model in any format), ``dataset`` or empty; ``owner/name#GLOB,...`` fetches
            some files only.
        label: how to name the setting in an error; the setting itself where empty.
        subset: of a hub dataset, which is fetched without the rest; None fetches all.

    Raises:
        InputError: it is missing, incomplete, or of another kind.
    """
    where = label or setting
    if not given.strip():
        raise InputError(
            "the path is empty",
            where=where,
            hint="the step that should have printed it may have failed; see above",
        )
    if is_address(given):
        if hub != "dataset":
            raise InputError(
                "an address can be given for data only", where=f"{where} {given}", hint="copy it first"
            )
        copied, version = fetch(given, where)
        return Input(setting, given, copied, "remote", revision=version)
    path = Path(given).expanduser()
    if not path.exists():
        if hub and _HUB_ID.fullmatch(given):
            return _from_hub(given, setting, hub, where, subset)
        if path.is_symlink():
            raise InputError(f"the link {given} leads nowhere: {path.readlink()} is missing", where=where)
        raise InputError(f"no such file or directory: {given}", where=where, hint=_missing_hint(path))
    if not os.access(path, os.R_OK):
        raise InputError(f"not readable: {given}", where=where, hint="check its permissions")
    owner = _owner(path)
    if owner is None:
        return Input(setting, given, path, "directory" if path.is_dir() else "file")
    if owner.path.resolve() != path.resolve():
        part = Input(setting, given, path, f"part of {owner.kind}", owner)
        # What the manifest does not list was put there by the user.
        return (
            part if part.recorded() else Input(setting, given, path, "directory" if path.is_dir() else "file")
        )
    if owner.kind not in accepts:
        wanted = " or ".join(dict.fromkeys(accepts))
        raise InputError(
            f"expected {wanted}, got an artifact of kind '{owner.kind}' made by '{owner.manifest.step}'",
            where=f"{where} {given}",
        )
    return Input(setting, given, path, owner.kind, owner)


def _missing_hint(path: Path) -> str:
    if path.with_name(path.name + PARTIAL).exists():
        return "the step that makes it has not finished; run it again to its end"
    folder = path.parent
    if not folder.is_dir():
        return f"the folder {folder} does not exist either"
    return nearest(path.name, sorted(item.name for item in folder.iterdir()), only_close=True)


def _near_path(path: Path) -> str:
    """What may be meant where ``owner/name`` is no hub id but a misspelt path."""
    return _missing_hint(path) if path.parent.is_dir() else ""


def _owner(path: Path) -> Artifact | None:
    """The artifact that a path is or is inside."""
    for folder in (path, *path.resolve().parents):
        if artifact.is_artifact(folder):
            return artifact.open_artifact(folder)
        if folder.name.endswith(PARTIAL):
            raise InputError(
                "unfinished: the step that makes it was stopped",
                where=str(folder),
                hint="run that step again to its end",
            )
    return None


def _hub_answers() -> bool:
    """Whether the hub's address resolves; without this, an offline machine retries for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    host = urlsplit(constants.ENDPOINT).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def _from_hub(given: str, setting: str, hub: str, where: str, subset: HubSubset | None = None) -> Input:
    """Fetch a hub snapshot, or take it from the cache when offline."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    fetch = typing.cast("typing.Any", huggingface_hub).snapshot_download
    repository, _, globs = given.partition("#")
    name, _, revision = repository.partition("@")
    logger.info(f"looking for {repository} on the hub")
    patterns = list(_FETCHED[hub] or ()) or None
    if globs:
        patterns = [*globs.split(","), *(_SMALL_FILES if hub == "weights" else ())]
    kind = "dataset" if hub == "dataset" else "model"
    online = _hub_answers()
    if subset is not None and not globs:
        patterns = _patterns_of_subset(name, revision or None, subset, where, online)
    try:
        path = Path(
            fetch(
                name,
                repo_type=kind,
                revision=revision or None,
                allow_patterns=patterns,
                local_files_only=not online,
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(error, LocalEntryNotFoundError):  # Its own words advise on Python arguments.
            reason = "it cannot be reached, and its local cache does not have it"
        raise InputError(
            f"'{repository}' is no local path, and the hub gave no such {kind} ({reason})",
            where=where,
            hint=_near_path(Path(given))
            or "check the name; offline, only what is in the hub's cache can be used",
        ) from None
    # A snapshot's folder is named by the commit it holds.
    return Input(setting, given, path, "hub", revision=path.name)


def _patterns_of_subset(
    name: str, revision: str | None, subset: HubSubset, where: str, online: bool
) -> list[str] | None:
    """The files of a subset; offline those of its last fetching, all where there was none.

    Raises:
        InputError: as :func:`_files_of_subset`.
    """
    key = "\0".join((name, revision or "", subset.name or ""))
    memory = cache_folder() / "subsets" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if not online:
        return json.loads(memory.read_text(encoding="utf-8")) if memory.is_file() else None
    patterns = _files_of_subset(name, revision, subset, where)
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(json.dumps(patterns), encoding="utf-8")
    return patterns


def _files_of_subset(name: str, revision: str | None, subset: HubSubset, where: str) -> list[str]:
    """The files of a subset, as the dataset's own description assigns them, and the description itself.

    Raises:
        InputError: several subsets and none chosen, or no such subset; nothing has been fetched then.
    """
    library: typing.Any = import_module("datasets")
    place = f"{where} {name}"
    try:
        builder: typing.Any = library.load_dataset_builder(name, name=subset.name, revision=revision)
    except Exception as error:  # Of the hub, of the network, and of descriptions that cannot be read.
        try:
            names: list[str] = library.get_dataset_config_names(name, revision=revision)
        except Exception:
            return _EVERYTHING  # snapshot_download says what is wrong with the hub
        if len(names) > 1 and subset.name not in names:
            what = f"no subset '{subset.name}'" if subset.name else "the dataset has several subsets"
            hint = f"choose with {subset.option}; {nearest(subset.name or '', names)}"
            raise InputError(what, where=place, hint=hint) from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"the dataset cannot be read: {reason}", where=place) from None
    splits: dict[str, list[typing.Any]] = builder.config.data_files or {}
    files = [str(file) for split in splits.values() for file in split]
    # hf://datasets/OWNER/NAME@COMMIT/PATH
    paths = [file.partition("@")[2].partition("/")[2] for file in files if "@" in file]
    return [*_DESCRIPTION, *paths] if paths else _EVERYTHING


_DESCRIPTION = ("README.md", "*.json", "*.yaml", ".huggingface.yaml")
_EVERYTHING = ["*"]
