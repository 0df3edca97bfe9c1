"""Configurations of the models of a merge: what they compute must agree, as weights are averaged one by one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

from priorkit.core.errors import Problems

logger = logging.getLogger(__name__)

_STRUCTURE = frozenset(
    {
        *("num_attention_heads", "num_key_value_heads", "num_heads", "n_head", "n_heads", "head_dim"),
        *("encoder_attention_heads", "decoder_attention_heads", "multi_query", "layer_types"),
        *("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers"),
        *("hidden_act", "hidden_activation", "activation_function", "projector_hidden_act", "afn"),
        *("hidden_size", "intermediate_size", "patch_size", "num_experts_per_tok", "num_local_experts"),
    }
)
"""Fields that say how weights are read and what nonlinearity is between them; models that differ in one of
them have no common function to average."""

_IRRELEVANT = frozenset(
    {
        *(
            "_name_or_path",
            "_commit_hash",
            "name_or_path",
            "architectures",
            "auto_map",
            "transformers_version",
        ),
        *("dtype", "torch_dtype", "use_cache", "tie_word_embeddings", "initializer_range", "pretraining_tp"),
        *("output_attentions", "output_hidden_states", "return_dict", "use_return_dict", "is_decoder"),
        *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "vocab_size"),
        *("attention_dropout", "hidden_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "dropout"),
        *("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_factor", "init_std"),
        *("gradient_checkpointing", "_attn_implementation", "attn_implementation", "chunk_size_feed_forward"),
        *("model_type", "torchscript", "unsloth_version", "unsloth_fixed", "quantization_config"),
        *(
            "scale_attn_weights_dtype",
            "router_aux_loss_coef",
            "output_router_logits",
            "logit_scale_init_value",
        ),
    }
)
"""Fields that do not change what given weights compute, or that are compared elsewhere."""


def check_configs(configs: Mapping[str, Mapping[str, Any]], reference: str, problems: Problems) -> None:
    """Refuse models of another structure than the reference's, and warn of other differences by name.

    Args:
        configs: the configuration of each model, by label; of one ``model_type``.
        reference: the label of the model whose configuration the result gets.
        problems: collects what is refused.
    """
    expected = configs[reference]
    for label, config in configs.items():
        if label == reference or config.get("model_type") != expected.get("model_type"):
            continue
        differing = _differences(expected, config)
        if any(one is _ABSENT or other is _ABSENT for one, other in differing.values()):
            differing = _differences(_completed(expected), _completed(config))
        refused = {name: pair for name, pair in differing.items() if _last(name) in _STRUCTURE}
        warned = {name: pair for name, pair in differing.items() if name not in refused}
        if refused:
            problems.add(
                f"its configuration differs from that of {reference}: {_text(refused)}",
                where=label,
                hint="models of one architecture and size can be merged",
            )
        if warned:
            logger.warning(
                f"{label}: the configuration differs from that of {reference}: {_text(warned)}; "
                f"the result has that of {reference}"
            )


_ABSENT = object()
_Differences = dict[str, tuple[Any, Any]]


def _differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> _Differences:
    """Fields of different values, by dotted name."""
    differences: _Differences = {}
    for key in dict.fromkeys((*one, *other)):
        if key in _IRRELEVANT:
            continue
        pair = one.get(key, _ABSENT), other.get(key, _ABSENT)
        if isinstance(pair[0], dict) and isinstance(pair[1], dict):
            tables = cast("tuple[dict[str, Any], dict[str, Any]]", pair)
            differences |= _differences(*tables, prefix=f"{prefix}{key}.")
        elif pair[0] != pair[1]:
            differences[prefix + key] = pair
    return differences


def _completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the defaults of its class in transformers; as it is where the type is unknown."""
    from transformers import CONFIG_MAPPING

    kind = str(config.get("model_type"))
    try:
        return CONFIG_MAPPING[kind](**config).to_dict() if kind in CONFIG_MAPPING else dict(config)
    except Exception:  # classes check what they like; the values written are compared then
        return dict(config)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _text(differing: _Differences) -> str:
    def value(content: Any) -> str:
        return "absent" if content is _ABSENT else repr(content)

    return ", ".join(
        f"{name} is {value(other)}, not {value(one)}" for name, (one, other) in differing.items()
    )
