"""Lists of class names: every published form gives the same names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from priorkit.core.errors import InputError
from priorkit.mle_bench.class_names import read_class_names

FORMS = {
    "lines": ("names.txt", lambda names: "\n".join(names)),
    "several names a line": ("names.txt", lambda names: "\n".join(f"{name}, thing; other" for name in names)),
    "colons": ("names.txt", lambda names: "\n".join(f"{n}: {name}" for n, name in enumerate(names, 1))),
    "colons from 0": ("names.txt", lambda names: "\n".join(f"{n}: {name}" for n, name in enumerate(names))),
    "spaces": ("names.txt", lambda names: "\n".join(f"{n} {name}" for n, name in enumerate(names, 1))),
    "dots": ("names.txt", lambda names: "\n".join(f"{n}. {name}" for n, name in enumerate(names, 1))),
    "tabs": ("names.txt", lambda names: "\n".join(f"{n}\t{name}" for n, name in enumerate(names, 1))),
    # The columns of CSAILVision/semantic-segmentation-pytorch, data/object150_info.csv.
    "object150_info.csv": (
        "object150_info.csv",
        lambda names: (
            "Idx,Ratio,Train,Val,Stuff,Name\n"
            + "\n".join(f"{n},0.1,30,2,0,{name};alias" for n, name in enumerate(names, 1))
        ),
    ),
    # The columns of the ADE20K scene-parsing benchmark's objectInfo150.txt.
    "objectInfo150.txt": (
        "objectInfo150.txt",
        lambda names: (
            "Idx\tRatio\tTrain\tVal\tName\n"
            + "\n".join(f"{n}\t0.1\t30\t2\t{name}, alias" for n, name in enumerate(names, 1))
        ),
    ),
    "a table of names": ("names.csv", lambda names: "name\n" + "\n".join(names)),
    "semicolons": (
        "names.csv",
        lambda names: "id;name\r\n" + "\r\n".join(f"{n};{name}" for n, name in enumerate(names, 1)),
    ),
    # The form of ade20k-id2label.json in huggingface/label-files: numbers from 0, without the unlabeled class.
    "id2label": ("id2label.json", lambda names: json.dumps(dict(enumerate(names)))),
    "label2id": ("names.json", lambda names: json.dumps({name: n for n, name in enumerate(names)})),
    "a list": ("names.json", lambda names: json.dumps(names)),
    "background first": (
        "id2label.json",
        lambda names: json.dumps(dict(enumerate(["background", *names]))),
    ),
}
NAMES = st.lists(
    st.text("abcdefghij xyz", min_size=2, max_size=9).map(str.strip).filter(lambda name: len(name) > 1),
    min_size=2,
    max_size=12,
    unique=True,
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(names=NAMES)
def test_every_form_gives_the_same_names(form: str, mark: str, names: list[str], tmp_path: Path) -> None:
    name, write = FORMS[form]
    (tmp_path / name).write_text(mark + write(names) + "\n", encoding="utf-8", newline="")
    assert read_class_names(tmp_path / name) == dict(enumerate(names, start=1))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("names.txt", "\n\n", "no names"),
        ("names.txt", "1: wall\n1: sky\n", "two classes have the number 1"),
        ("names.csv", "id,name\n1,wall\n2\n", "row 2 after the header has 1 of 2 columns"),
        ("names.csv", "id,name\none,wall\n", "expected the number of a class, got 'one'"),
        ("names.json", "{", "not readable as JSON"),
        ("names.json", '{"1": ["wall"]}', "expected the name of a class"),
        ("names.json", "3", "a list, or an object"),
        ("names.csv", "id,name\n1, \n", "the class 1 has no name"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_class_names(tmp_path / name)
