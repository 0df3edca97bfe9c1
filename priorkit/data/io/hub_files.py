"""Files of a split of a hub dataset, as the dataset's own description assigns them."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# datasets has no type stubs.

from __future__ import annotations

from pathlib import Path

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
