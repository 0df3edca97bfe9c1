"""The structure of the package: sizes of folders and functions, imports per module, cycles, names."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2] / "priorkit"
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}

FILES_PER_FOLDER = 15
LINES_PER_FUNCTION = 70
IMPORTS_PER_MODULE = 15


def imports(name: str) -> set[str]:
    """The project's modules that a module imports, also for types only."""
    found: set[str] = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("priorkit"):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name in MODULES)
    return found - {name}


def test_no_folder_holds_more_files_than_a_reader_can_keep_in_mind() -> None:
    # A step is a file of its own, however many steps there are.
    folders = defaultdict(int)
    for path in MODULES.values():
        folders[path.parent] += path.name != "__init__.py"
    crowded = {
        folder.name: n for folder, n in folders.items() if n > FILES_PER_FOLDER and folder.name != "steps"
    }
    assert crowded == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{name}.{node.name}": node.end_lineno - node.lineno + 1
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= LINES_PER_FUNCTION
    }
    assert set(long) <= {"priorkit.training.engine.loop.train"}, long


def test_no_module_imports_half_the_project() -> None:
    many = {name: len(imports(name)) for name in MODULES if len(imports(name)) > IMPORTS_PER_MODULE}
    assert many == {}


def test_there_are_no_import_cycles_not_even_of_types() -> None:
    try:
        TopologicalSorter({name: imports(name) for name in MODULES}).prepare()
    except CycleError as error:
        raise AssertionError(f"import cycle: {' -> '.join(error.args[1])}") from None


def test_a_public_class_name_has_one_meaning() -> None:
    places = defaultdict(list)
    for name, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_packages_reexport_nothing() -> None:
    for name, path in MODULES.items():
        if path.name == "__init__.py" and name != "priorkit":
            code = [node for node in TREES[name].body if not isinstance(node, ast.Expr)]
            assert code == [], name


def test_settings_are_typed() -> None:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                for argument in (*node.args.args, *node.args.kwonlyargs):
                    if argument.arg == "settings":
                        assert ast.unparse(argument.annotation or ast.Name("Any")) != "Any", (
                            f"{name}.{node.name}"
                        )
