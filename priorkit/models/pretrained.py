"""Loading a model of transformers from a local folder, with errors for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError, library_reads
from priorkit.models.folder import refuse_surrogates


def load_pretrained(model_class: Any, folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """``model_class.from_pretrained`` from local safetensors only.

    Args:
        model_class: a model class of transformers, or one of its ``AutoModel`` classes.
        folder: in Hugging Face's layout.
        **options: further arguments of ``from_pretrained``.

    Returns:
        The model, and transformers' report on missing, unexpected and mismatched keys.

    Raises:
        InputError: the model cannot be loaded.
    """
    with library_reads("the model cannot be loaded", str(folder)):
        return model_class.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that refuse_missing_tensors can name them
            **options,
        )


def refuse_missing_tensors(report: dict[str, Any], folder: Path) -> None:
    """Refuse a model with weights that would be random.

    Args:
        report: from :func:`load_pretrained`.
        folder: of the model, for the message.

    Raises:
        InputError: naming tensors that are missing or of another shape.
    """
    missing, mismatched = sorted(report.get("missing_keys", [])), report.get("mismatched_keys", [])
    if missing or mismatched:
        names = [*missing, *(str(item[0] if isinstance(item, tuple) else item) for item in mismatched)]
        raise InputError(
            f"{len(names)} tensors are missing or of another shape, such as {', '.join(names[:3])}",
            where=str(folder),
        )


def model_name(model: Any) -> str:
    """The folder that a model, or the model inside one of ours, was loaded from; its class where it was built."""
    inner = getattr(model, "model", model)
    return str(getattr(inner, "name_or_path", "")) or type(inner).__name__


def load_preprocessor(auto_class: Any, folder: Path) -> Any:
    """``auto_class.from_pretrained`` from a local folder: a processor, an image processor or its tokenizer.

    Raises:
        InputError: it cannot be loaded.
    """
    refuse_surrogates(folder)
    with library_reads("its processor cannot be loaded", str(folder)):
        return auto_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
