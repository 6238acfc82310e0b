"""Imports between the parts of the package run one way (DESIGN 2)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamgate

ROOT = Path(streamgate.__file__).parent
LAYERS = (
    ("cli",), ("commands",), ("service", "clips", "tuning", "convert"), ("gate",), ("runtime",), ("sinks",),
    ("report", "people", "exports"), ("store",), ("selection",), ("scoring",), ("networks",), ("weights", "config"),
    ("measures",), ("frames",), ("errors",),
)  # fmt: skip
"""From above to below; a part imports none of a layer above its own. Parts that are not named stand beside these."""


def parts() -> dict[str, list[Path]]:
    """The modules of each part: a package below `streamgate`, or one of its own modules."""
    found = {path.name: sorted(path.rglob("*.py")) for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
    return found | {path.stem: [path] for path in ROOT.glob("*.py") if path.stem != "__init__"}


def imported(path: Path) -> Iterator[str]:
    """Parts that a module imports, wherever in it that stands; what is for types alone does not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "streamgate" and rest:
                yield rest.partition(".")[0]


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = parts()
    return {
        name: {other for path in modules for other in imported(path) if other in known and other != name}
        for name, modules in known.items()
    }


def test_no_two_parts_import_each_other_not_even_round_about(graph: dict[str, set[str]]) -> None:
    below = {name: _reached(graph, name) for name in graph}
    circles = {frozenset({name, *(other for other in below[name] if name in below[other])}) for name in graph}
    assert {circle for circle in circles if len(circle) > 1} == set()


def test_nothing_imports_what_stands_above_it(graph: dict[str, set[str]]) -> None:
    height = {name: index for index, layer in enumerate(LAYERS) for name in layer}
    assert set(height) <= set(graph), "a part of that name is no more"
    wrong = {
        (name, other) for name in height for other in graph[name] if other in height and height[other] < height[name]
    }
    assert wrong == set()


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    left = [start]
    while left:
        for other in graph[left.pop()] - found:
            found.add(other)
            left.append(other)
    return found
