"""Files of a split of a hub dataset, as the dataset's own description assigns them."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# datasets has no type stubs.

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from priorkit.core.errors import InputError, nearest


def split_files(folder: Path, subset: str | None, split: str, where: str) -> list[Path]:
    """The files of one split, found by the datasets library as ``load_dataset`` would.

    Args:
        folder: the snapshot of the dataset on this machine.
        subset: the subset (configuration); None where there is only one, or a default.
        split: such as ``train``.
        where: what to name in errors.

    Raises:
        InputError: no such subset or split.
    """
    from datasets import get_dataset_config_names, load_dataset_builder

    if subset and (described := _described_files(folder, subset, where)):
        if split not in described:
            raise InputError(f"no split '{split}'", where=where, hint=nearest(split, described))
        return sorted(described[split])
    try:
        builder = load_dataset_builder(str(folder), name=subset)
    except (ValueError, OSError, ImportError) as error:
        try:
            names = get_dataset_config_names(str(folder))
        except (ValueError, OSError, ImportError):
            names = []
        if len(names) > 1 and subset not in names:
            what = f"no subset '{subset}'" if subset else "the dataset has several subsets"
            hint = f"choose with --subset NAME=SUBSET; {nearest(subset or '', names)}"
            raise InputError(what, where=where, hint=hint) from None
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"the dataset cannot be read: {first}", where=where) from None
    files = {str(name): paths for name, paths in (builder.config.data_files or {}).items()}
    if split not in files:
        raise InputError(f"no split '{split}'", where=where, hint=nearest(split, files))
    return sorted(Path(str(file)) for file in files[split])


def _described_files(folder: Path, subset: str, where: str) -> dict[str, list[Path]]:
    """The files of a subset by split, as the data set's card assigns them; empty where it does not.

    The library looks for the files of the first subset too, which are not there if only another was fetched.

    Raises:
        InputError: the subset's files are not there.
    """
    from datasets.data_files import DataFilesDict, get_data_patterns, sanitize_patterns
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    card = folder / "README.md"
    if not card.is_file():
        return {}
    try:
        configs = MetadataConfigs.from_dataset_card_data(cast("Any", DatasetCard.load(card).data))
    except ValueError as error:
        raise InputError(f"the dataset's card cannot be read: {error}", where=where) from None
    config = configs.get(subset)
    if config is None or not {"data_files", "data_dir"} & set(config):
        return {}
    base = (folder / str(config.get("data_dir", ""))).as_posix()
    try:
        found = config.get("data_files")
        patterns = sanitize_patterns(found) if found else get_data_patterns(base)
        files = DataFilesDict.from_patterns(patterns, base_path=base)
    except (FileNotFoundError, ValueError) as error:
        raise InputError(
            f"the files of the subset '{subset}' cannot be found: {error}", where=where
        ) from None
    return {str(split): [Path(str(file)) for file in names] for split, names in files.items()}
