from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from itertools import chain

import pytest

from priorkit.world.options import WorldOptions
from priorkit.world.scenes.captions import POSITIONS
from priorkit.world.scenes.entities import Entity, choose_entities
from priorkit.world.text import documents as world_text
from priorkit.world.text import real_text, reasoning
from priorkit.world.text.documents import Document
from priorkit.world.text.traced_code import traced_program

Source = Callable[[int, float], tuple[list[Document], list[Document]]]


def everything(parts: tuple[list[Document], list[Document]]) -> list[Document]:
    return [*chain.from_iterable(parts)]


def captured(pattern: str, program: str) -> str:
    (first, *_) = re.findall(pattern, program)
    return first


@pytest.mark.parametrize("kind", ["visual", "facts"])
def test_text_names_only_the_entities_drawn_for_it(kind: str) -> None:
    entities: tuple[Entity, ...] = choose_entities(WorldOptions())
    write = (
        world_text.visual_writer(entities, 48, listing_share=0.5)
        if kind == "visual"
        else world_text.facts_writer(entities)
    )
    documents = everything(world_text.split(write, random.Random(1), kind, 40_000, 0.1))
    named = sorted((entity.name for entity in entities if entity.in_text), key=len, reverse=True)
    allowed = re.compile("|".join(map(re.escape, named)))
    untold = re.compile(
        rf"\b({'|'.join(re.escape(entity.name) for entity in entities if not entity.in_text)})\b"
    )
    assert sum(len(allowed.findall(document.text)) for document in documents) > 200
    assert [
        found for document in documents if (found := untold.search(allowed.sub("*", document.text)))
    ] == []


def test_lists_answer_their_questions() -> None:
    """Every answer can be read off the list: a name by its colour, a box, a colour, a number, yes or no."""
    entities = choose_entities(WorldOptions())
    write, rng = world_text.visual_writer(entities, 48, listing_share=1.0), random.Random(4)
    answered = 0
    for text in (write(rng) for _ in range(600)):
        if ";" not in text.splitlines()[0] or "[" not in text:
            continue
        listed, again, *questions = text.splitlines()
        entries = [
            re.fullmatch(r"(\w+) (\w+) (.+) (\[.+\])", entry)
            for entry in listed.removesuffix(".").split("; ")
        ]
        found = [entry.groups() for entry in entries if entry]
        assert len(found) == len(entries)
        order, _, relisted = again.removesuffix(".").partition(": ")
        assert sorted(relisted.split("; ")) == sorted(listed.removesuffix(".").split("; "))
        assert order in ("From left to right", "From top to bottom", "From small to large")
        for line in questions:
            question, _, reply = line.rpartition("? ") if "? " in line else line.rpartition(". ")
            if reply.startswith("["):
                (box,) = [box for *_, name, box in found if f"the {name}" in question and box == reply]
                assert box == reply
            elif reply in ("yes", "no"):
                meant = [
                    name
                    for size, color, name, written in found
                    if re.search(
                        rf"\ban? ({name}|({color}|{size}) symbol)$", question.removesuffix(" in the image")
                    )
                    or question.endswith(f" symbol {position(written)}")
                ]
                assert bool(meant) == (reply == "yes")
            elif match := re.search(r"colour (?:is|does|of) the (.+?)(?: have)?$", question):
                assert [color for _, color, name, _ in found if name == match[1]] == [reply]
            else:
                continue
            answered += 1
    assert answered > 100


def position(written: str) -> str:
    """What the ninth of the image is called in which the middle of a written box lies."""
    left, top, right, bottom = (round(48 * share) for share in json.loads(written))
    return POSITIONS[3 * (3 * (top + bottom) // 96) + 3 * (left + right) // 96]


def test_facts_are_true() -> None:
    entities = choose_entities(WorldOptions())
    known = {entity.name: entity for entity in entities}
    documents = everything(
        world_text.split(world_text.facts_writer(entities), random.Random(2), "facts", 60_000, 0.1)
    )
    claims = 0
    for document in documents:
        for name, category in re.findall(r"The ([a-z ]+?) belongs to the ([a-z -]+)\.", document.text):
            assert known[name].category.name == category
            claims += 1
        for name, code in re.findall(r"code point of the ([a-z ]+?) is U\+([0-9A-F]+)\.", document.text):
            assert ord(known[name].symbol.character) == int(code, 16)
            claims += 1
    assert claims > 100


def test_sums_and_products_are_right() -> None:
    rng = random.Random(0)
    for _ in range(300):
        written = reasoning.arithmetic(rng)
        for left, operation, right, result in re.findall(
            r"(?<![+*-] )\b(\d+) ([+*-]) (\d+) = (\d+)", written
        ):
            first, second = int(left), int(right)
            value = {"+": first + second, "-": first - second, "*": first * second}[operation]
            assert value == int(result), written


def test_traces_state_what_the_program_prints() -> None:
    rng = random.Random(0)
    for _ in range(200):
        program = traced_program(rng)
        if "for " in program and "+=" in program:
            start = int(captured(r"^\w+ = (\d+)", program))
            values = [int(value) for value in captured(r"\[(.*)\]", program).split(",")]
            factor = int(captured(r"\+= (\d+)", program))
            assert program.endswith(f"# prints {start + factor * sum(values)}")
        compile(program, "program", "exec")


def test_held_out_documents_are_new_and_sizes_are_kept() -> None:
    train, heldout = world_text.split(reasoning.logic, random.Random(0), "logic", 20_000, 0.2)
    assert not {document.text for document in train} & {document.text for document in heldout}
    assert len({document.id for document in train + heldout}) == len(train) + len(heldout)
    assert 20_000 <= sum(len(document.text) for document in train) < 21_000
    assert 4_000 <= sum(len(document.text) for document in heldout) < 5_000


def test_a_writer_without_new_documents_ends() -> None:
    train, heldout = world_text.split(lambda rng: rng.choice("abc"), random.Random(0), "letters", 100, 0.01)
    assert sorted(document.text for document in train + heldout) == ["a", "b", "c"]


@pytest.mark.parametrize("source", [real_text.python_source, real_text.python_docs])
def test_real_text_is_capped_repeatable_and_split_by_file(source: Source) -> None:
    train, heldout = source(30_000, 0.2)
    assert (train, heldout) == source(30_000, 0.2)
    assert not {document.id.split("#")[0] for document in train} & {
        document.id.split("#")[0] for document in heldout
    }
    assert 30_000 <= sum(len(document.text) for document in train) < 45_000
    assert len({document.id for document in train}) == len(train)
