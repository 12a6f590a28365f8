"""The package's source as syntax trees, for the tests of its layout and code style."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "lora_edit"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(*folders: Path) -> list[Path]:
    """Every Python file under the folders, sorted."""
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


@cache
def parse(path: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def package_of(path: Path) -> str:
    """The first name under `lora_edit`: `video` for `video/read.py`, `types` for `types.py`, `""` for the package's `__init__`.
    `__main__` counts as part of `cli`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return {"__init__": "", "__main__": "cli"}.get(parts[0], parts[0])


def place(path: Path, node: ast.AST) -> str:
    """`file:line`, relative to the repository."""
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def nodes(*folders: Path) -> Iterator[tuple[Path, ast.AST]]:
    """Every node of every file, with its file."""
    for path in python_files(*folders):
        for node in ast.walk(parse(path)):
            yield path, node


def dotted(node: ast.AST) -> str:
    """The dotted name of an expression, such as `torch.random.fork_rng`; parts that are not names are empty."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""
