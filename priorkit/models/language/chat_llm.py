"""Whether a language model can be trained on conversations."""

from __future__ import annotations

from pathlib import Path

from priorkit.core.safetensors_header import TensorInfo
from priorkit.models.folder import tensor_files
from priorkit.models.language.causal_lm import check_llm
from priorkit.models.language.chat_template import check_chat_template
from priorkit.models.language.tokenizer import load_tokenizer


def check_chat_llm(folder: Path) -> dict[str, TensorInfo]:
    """Check from headers that a folder is a language model, and that its chat template marks the answers.

    Returns:
        Its tensors.

    Raises:
        InputError: it is not, or its template does not.
    """
    check_llm(folder)
    check_chat_template(load_tokenizer(folder), folder)
    return tensor_files(folder)
