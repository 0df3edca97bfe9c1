"""Heads tied to embeddings: which models tie them, and when a merge must write a head next to the embeddings.

transformers ties a head where the configuration says so and the file has no head, or one that equals the
embeddings; a different head in the file counts although the configuration says tied
(``PreTrainedModel.tie_weights``). PEFT wraps the two modules separately, so an adapter that trained one of
them leaves the other as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from priorkit.core.safetensors_header import TensorInfo
from priorkit.merging.lora import Lora, LoraAdapter
from priorkit.merging.names import NameMap
from priorkit.merging.tensors import BUFFERS, FLOATS, TensorReader, item_size

_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_HEADS = ("lm_head.weight", "embed_out.weight")
_COMPARED = 1 << 22
"""Values compared at a time."""


@dataclass(frozen=True, slots=True)
class TiedPair:
    """Names of the two tensors that a model may tie.

    Attributes:
        embedding: the input embeddings, which the file holds.
        head: the output embeddings, whether or not the file holds them.
        tied: whether both are one tensor in memory.
    """

    embedding: str
    head: str
    tied: bool


def tied_in_config(config: Mapping[str, Any]) -> bool | None:
    """What a configuration, or that of its language model, says about tying; None where it says nothing."""
    text: Any = config.get("text_config")
    table = cast("dict[str, Any]", text) if isinstance(text, dict) else {}
    said = config.get("tie_word_embeddings", table.get("tie_word_embeddings"))
    return None if said is None else bool(said)


def find_pair(tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> TiedPair | None:
    """A model's embeddings and head; None where the file has no embeddings of a language model.

    The head's values are compared with the embeddings' only where the file has both and the configuration says
    that they are tied.
    """
    embeddings = [name for name in tensors if _ends(name, _EMBEDDINGS)]
    heads = [name for name in tensors if _ends(name, _HEADS)]
    if len(embeddings) != 1 or len(heads) > 1:
        return None
    embedding, said = embeddings[0], tied_in_config(config)
    if heads:
        equal = said is True and equal_values(tensors[embedding], tensors[heads[0]])
        return TiedPair(embedding, heads[0], equal)
    prefix = "language_model." if embedding.startswith("language_model.") else ""
    head = "embed_out.weight" if embedding.endswith("embed_in.weight") else "lm_head.weight"
    return TiedPair(embedding, prefix + head, said is not False)


def _ends(name: str, endings: Iterable[str]) -> bool:
    return any(name == ending or name.endswith("." + ending) for ending in endings)


def equal_values(one: TensorInfo, other: TensorInfo) -> bool:
    """Whether two tensors on disk are the same bytes of the same type and shape."""
    if one == other:
        return True
    if one.dtype != other.dtype or one.shape != other.shape or one.dtype not in {**FLOATS, **BUFFERS}:
        return False
    step = max(1, _COMPARED // item_size(one.dtype))
    with TensorReader() as reader:
        reader.open((one.file, other.file))
        for start in range(0, one.count, step):
            count = min(step, one.count - start)
            if reader.raw(one, start, count).tobytes() != reader.raw(other, start, count).tobytes():
                return False
    return True


@dataclass(frozen=True)
class PlacedAdapter:
    """An adapter's parts by the base's names.

    Attributes:
        loras: deltas in factors.
        trained: full tensors that replace the base's in modules of their own (``modules_to_save``).
        loaded: tensors that PEFT loads into the base: biases, embeddings saved along, copies of layers
            under a LoRA. A tied embedding and head share what is loaded into either.
        missing: names that the base does not have.
    """

    loras: dict[str, Lora]
    trained: dict[str, TensorInfo]
    loaded: dict[str, TensorInfo]
    missing: tuple[str, ...]

    def of_pair(self, pair: TiedPair) -> dict[str, TensorInfo]:
        """The full tensors of embeddings and head."""
        both = {**self.loaded, **self.trained}
        return {name: both[name] for name in (pair.embedding, pair.head) if name in both}

    def separates(self, pair: TiedPair) -> bool:
        """Whether embeddings and head differ under this adapter on a base that ties them."""
        if pair.embedding in self.loras or pair.head in self.loras:
            return True
        values = list(self.of_pair(pair).values())
        if len(values) == 2 and equal_values(values[0], values[1]):
            return False
        return pair.embedding in self.trained or pair.head in self.trained

    def full(self, pair: TiedPair | None, base: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
        """Full tensors by name.

        Args:
            pair: the base's embeddings and head where the base ties them; None where it does not.
            base: tensors of the reference, with the head where the merge unties it.
        """
        values = {**self.loaded, **self.trained}
        if pair is None:
            return values
        # Modules load in the order of the model, the head last.
        shared = self.loaded.get(pair.head, self.loaded.get(pair.embedding))
        if shared is not None and equal_values(shared, base[pair.embedding]):
            shared = None
        for name in (pair.embedding, pair.head):
            values.pop(name, None)
            value = self.trained.get(name, shared)
            if value is not None:
                values[name] = value
        if pair.head not in base and (head := values.pop(pair.head, None)) is not None:
            values.setdefault(pair.embedding, head)
        return values


def place_adapter(adapter: LoraAdapter, names: NameMap) -> PlacedAdapter:
    """Find the base's tensors that an adapter's parts belong to."""
    missing: list[str] = []

    def placed(tensors: Mapping[str, Any], suffix: str = "") -> dict[str, Any]:
        stored_names = {name: names.find(name + suffix) for name in tensors}
        missing.extend(name + suffix for name, stored in stored_names.items() if stored is None)
        return {stored: tensors[name] for name, stored in stored_names.items() if stored is not None}

    loras = placed(adapter.modules, ".weight")
    trained = placed({name: info for name, info in adapter.saved.items() if adapter.replaces(name)})
    along = {name: info for name, info in adapter.saved.items() if not adapter.replaces(name)}
    loaded = placed({**adapter.base_layers, **along})
    return PlacedAdapter(loras, trained, loaded, tuple(missing))


@dataclass(frozen=True)
class ResolvedModels:
    """All models of a merge in one form.

    Attributes:
        models: tensors of each model, by label; either none has a tied head, or all have a head.
        pair: the reference's embeddings and head where its file ties them; None elsewhere.
        unties: whether the result needs ``tie_word_embeddings`` false although the reference's
            configuration does not say so.
        redundant: heads in files that only repeat the embeddings and are left out, by label.
    """

    models: dict[str, dict[str, TensorInfo]]
    pair: TiedPair | None
    unties: bool
    redundant: dict[str, tuple[str, ...]]


def resolve_models(
    models: Mapping[str, Mapping[str, TensorInfo]],
    configs: Mapping[str, Mapping[str, Any]],
    adapters: Sequence[LoraAdapter],
    reference: str,
    as_adapter: bool,
) -> ResolvedModels:
    """Untie embeddings and heads where one input needs it.

    Args:
        models: tensors by name, for each model.
        configs: the configuration of each model.
        adapters: the adapters that are merged.
        reference: label of the model that the result is written like.
        as_adapter: whether the result is an adapter, which keeps both separate.
    """
    pairs = {label: candidate for label in models if (candidate := find_pair(models[label], configs[label]))}
    pair = pairs.get(reference)
    unties = any(not known.tied for known in pairs.values())
    if pair is not None and pair.tied:
        names = NameMap([*models[reference], *([] if pair.head in models[reference] else [pair.head])])
        placed = [place_adapter(adapter, names) for adapter in adapters]
        unties = unties or any(item.separates(pair) or (as_adapter and item.of_pair(pair)) for item in placed)
    resolved = {label: dict(tensors) for label, tensors in models.items()}
    redundant: dict[str, tuple[str, ...]] = {}
    for label, known in pairs.items():
        if unties:
            resolved[label].setdefault(known.head, resolved[label][known.embedding])
        elif resolved[label].pop(known.head, None) is not None:
            redundant[label] = (known.head,)
    says_tied = tied_in_config(configs[reference]) is True
    writes_head = pair is not None and unties and (says_tied or pair.head not in models[reference])
    return ResolvedModels(resolved, pair if pair and pair.tied else None, writes_head, redundant)
