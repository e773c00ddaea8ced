"""The house is tidy: imports run one way, and what is written can be read in one look."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST_MODULE_LINES = 400
LONGEST_FUNCTION_LINES = 60

# A module imports from its own row and from those above it. A package stands for all in it, and
# a word for the modules that begin with it (verify for verify_bundle), unless they have a place.
ROWS = (
    "errors finding fold hints spec canonical strict_json manifest bundle_record layout header "
    "digest positional cores resources signals numpy_dtypes torch_dtypes needed typed_json "
    "progress trace_record",
    "source steps",
    "rules dims",
    "plan",
    "bind",
    "write publish",
    "moments values distance target suspicions",
    "lanes record",
    "execute shards conversion bundle ray",
    "pickle",
    "verify describe explain diff scaffold compare",
    "signing reverse",
    "sheet terminal report page",
    "api",
    "cli",
    "__main__",
)
LEAVES = frozenset(ROWS[0].split())
# A network is run by the runtime, so there is one door to it.
DOORS = frozenset({"converter.api_trace"})


def modules() -> dict[str, Path]:
    """Return module → file of the package, by names such as ``converter.rules.parse``."""
    found = {}
    for path in sorted((ROOT / "converter").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
PLACES = {name: row for row, names in enumerate(ROWS) for name in names.split()}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the modules of the package that are imported anywhere in ``tree``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in inner]
        else:
            continue
        yield from (name for name in names if name in MODULES)


def imports_on_loading(path: Path) -> set[str]:
    """Return what is imported when the module at ``path`` is, and not when a function runs."""
    tree = ast.parse(path.read_text())
    at_once = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    for node in at_once:
        for inner in ast.walk(node):
            if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
                inner.body = []
    return {name for node in at_once for name in imports(node)}


def top(module: str) -> str:
    """Return the first part of a module's name below the package, or '' for the package."""
    return module.partition(".")[2].partition(".")[0]


def row_of(module: str) -> int | None:
    """Return the row of a module; None where the table has no place for it."""
    name = top(module)
    return PLACES.get(name, PLACES.get(name.partition("_")[0]))


def test_every_module_has_a_row() -> None:
    rowless = [
        name for name in MODULES if top(name) not in ("", "runtime") and row_of(name) is None
    ]
    assert not rowless


@pytest.mark.parametrize("module", [name for name in MODULES if top(name) not in ("", "runtime")])
def test_imports_follow_the_rows(module: str) -> None:
    imported = set(imports(ast.parse(MODULES[module].read_text()))) - {"converter"}
    row = row_of(module) or 0
    wrong = [name for name in imported if (row_of(name) or 0) > row]
    wrong += [name for name in imported if top(name) == "runtime" and module not in DOORS]
    assert not wrong


def test_the_runtime_stands_on_the_leaves_alone() -> None:
    for module in MODULES:
        if top(module) == "runtime":
            imported = {top(name) for name in imports(ast.parse(MODULES[module].read_text()))}
            assert imported <= LEAVES | {"runtime"}, module


def test_no_imports_run_in_a_circle() -> None:
    TopologicalSorter({name: imports_on_loading(path) for name, path in MODULES.items()}).prepare()


def test_the_front_door_imports_nothing() -> None:
    assert not list(imports(ast.parse(MODULES["converter"].read_text())))


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_can_be_read_in_one_look(module: str) -> None:
    text = MODULES[module].read_text()
    assert len(text.splitlines()) <= LONGEST_MODULE_LINES
    long = [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or node.lineno) - node.lineno >= LONGEST_FUNCTION_LINES
    ]
    assert not long


def test_every_module_says_what_it_is() -> None:
    silent = [
        name for name, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


@pytest.mark.parametrize("path", sorted((ROOT / "rules").rglob("*.yaml")), ids=lambda p: p.name)
def test_rule_files_name_their_schema_for_editors(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    start, _, schema = first.partition("=")
    assert start == "# yaml-language-server: $schema"
    assert (path.parent / schema).is_file()


@pytest.mark.parametrize("path", sorted((ROOT / "rules").glob("*.yaml")), ids=lambda p: p.name)
def test_a_rule_file_bears_the_name_of_its_model(path: Path) -> None:
    assert f"model: {path.stem}" in path.read_text().splitlines()
