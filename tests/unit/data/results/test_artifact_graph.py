"""Lineage: artifacts found by content behind those given."""

from __future__ import annotations

import shutil

import pytest

from priorkit.core.artifact import open_artifact
from priorkit.core.errors import InputError
from priorkit.data.results.artifact_graph import entity_column, gather, owner_of, prior_groups
from priorkit.report.lineage import lineage
from priorkit.report.pictures import entity_pictures, item_pictures


def test_what_an_artifact_was_made_from_is_found(make) -> None:
    llm = make.llm(make.corpus())
    members = gather({"mine": llm})
    assert [(m.label, m.given) for m in members] == [("mine", True), ("corpus", False)]


def test_a_changed_input_is_not_taken_for_the_old_one(make) -> None:
    corpus = make.corpus()
    llm = make.llm(corpus)
    shutil.rmtree(corpus.path)
    corpus.path.mkdir()
    (corpus.path / "other.txt").write_text("other")
    make.seal("corpus", "corpus", "mix")
    assert [member.label for member in gather({"llm": llm})] == ["llm"]


def test_a_part_is_identified_only_by_its_content(make, part) -> None:
    world = make.world()
    members = gather({"world": world})
    assert owner_of(part(world, "images"), members) is members[0]
    assert owner_of(part(world, "images").model_copy(update={"digest": "0" * 64}), members) is None


def test_colours_are_counted_by_what_is_compared(make) -> None:
    world = make.world()
    text = {"facts": {"metrics": {"perplexity": {"value": 3.0, "low": 2.0, "high": 4.0}}, "items": 1}}
    given = {
        "before": make.ranks("r1", [2.0] * 12, world.path / "images"),
        "after": make.ranks("r2", [1.0] * 12, world.path / "images"),
        "seeing": make.evaluation("e1", {"naming": [True]}),
        "blind": make.evaluation("e2", {"naming": [False]}),
        "text": make.evaluation("e3", {}, extra=text),
    }
    colors = {member.label: member.color for member in gather(given) if member.given}
    assert colors == {"before": 0, "after": 1, "seeing": 0, "blind": 1, "text": 0}
    mixed = make.evaluation("e4", {"naming": [True]}, extra=text)
    assert [m.color for m in gather({**given, "mixed": mixed}) if m.artifact.kind == "evaluation"] == [
        0,
        1,
        2,
        3,
    ]


def test_the_graph_runs_from_left_to_right(make) -> None:
    world = make.world()
    llm = make.llm(make.corpus())
    ranks = make.ranks("ranks", [2.0] * 12, world.path / "images")
    graph = lineage(gather({"llm": llm, "ranks": ranks}))
    at = {node.label: node for node in graph.nodes}
    assert set(at) == {"llm", "ranks", "corpus", "world"}
    assert at["corpus"].x + at["corpus"].width < at["llm"].x
    assert at["world"].x + at["world"].width < at["ranks"].x
    assert len({(node.x, node.y) for node in graph.nodes}) == 4
    assert len(graph.paths) == 2
    assert all(node.x + node.width <= graph.width for node in graph.nodes)
    assert (at["llm"].given, at["corpus"].given, at["corpus"].known) == (True, False, True)


def test_inputs_that_are_gone_are_still_in_the_graph(make) -> None:
    corpus = make.corpus()
    llm = make.llm(corpus)
    shutil.rmtree(corpus.path)
    graph = lineage(gather({"llm": llm}))
    assert {node.label: node.known for node in graph.nodes} == {"llm": True, "corpus": False}


def test_priors_come_from_the_world_behind_the_ranks(make) -> None:
    ranks = make.ranks("ranks", [2.0] * 12, make.world().path / "images")
    assert prior_groups(gather({"ranks": ranks}))["sign 11"] == "none"


def test_a_column_that_is_missing_is_named_with_the_nearest(make) -> None:
    file = make.world().path / "entities.parquet"
    assert entity_column(file, "pairs")["sign 00"] == 40
    with pytest.raises(InputError, match="did you mean 'pairs'"):
        entity_column(file, "pair")
    lines = make.root / "entities.jsonl"
    lines.write_text('{"entity": "x", "pairs": 3}\n{"entity": "y"}\n')
    assert entity_column(lines, "pairs") == {"x": 3, "y": None}


def test_pictures_come_from_where_they_were_read(make) -> None:
    world = make.world()
    ranks = make.ranks("ranks", [2.0] * 12, world.path / "images")
    pictures = entity_pictures(ranks, ["sign 03"])
    assert pictures["sign 03"][0].startswith("data:image/png;base64,")
    evaluation = make.evaluation("e", {"naming": [True] * 3}, world.path / "benchmarks" / "naming.parquet")
    found = item_pictures([evaluation], {"naming": ["naming-1"]})
    assert list(found) == [("naming", "naming-1")]
    shutil.rmtree(world.path)
    assert entity_pictures(open_artifact(ranks.path), ["sign 03"]) == {}
    assert item_pictures([evaluation], {"naming": ["naming-1"]}) == {}
