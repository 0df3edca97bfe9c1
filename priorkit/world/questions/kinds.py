"""The kinds of questions."""

from __future__ import annotations

from types import MappingProxyType

from priorkit.world.questions import attributes, comparison, existence, knowledge, names, relations

LOOKED_UP = (
    names.naming_by_color,
    attributes.color,
    attributes.size,
    relations.relation,
    relations.counting,
    comparison.by_name,
    comparison.by_place,
    existence.of_name,
    existence.of_color,
    existence.of_size,
    existence.by_place,
    relations.grounding,
)
"""What a list of the objects with their boxes answers."""

KINDS = MappingProxyType(
    {kind.name: kind for kind in (names.naming, attributes.background, *LOOKED_UP, knowledge.knowledge)}
)
"""All kinds by name."""
