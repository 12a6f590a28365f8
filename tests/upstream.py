"""Upstream source as an oracle: read from checkouts that people make themselves (CONTRIBUTING.md), never from this repository.

`LORA_EDIT_UPSTREAM` names a folder of work trees; what is not there is skipped. Nothing of it is installed: modules are loaded by path,
and where a file does work on import, or needs a device, single functions and classes are taken out of it.
"""

from __future__ import annotations

import ast
import importlib
import logging
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

VARIABLE = "LORA_EDIT_UPSTREAM"


def checkout(name: str) -> Path:
    """The work tree of that name; the test is skipped where there is none."""
    folder = Path(os.environ.get(VARIABLE) or "/nonexistent") / name
    if not folder.is_dir():
        pytest.skip(f"{VARIABLE} holds no {name} (see CONTRIBUTING.md)")
    return folder


def load(name: str, folder: str, module: str, **stubs: types.ModuleType) -> Any:
    """`module` of the checkout's `folder`, as a package without its `__init__`; `stubs` stand in for its neighbours."""
    place = checkout(name) / folder
    package = "upstream_" + f"{name}_{folder}".replace("/", "_").replace(".", "_")
    if package not in sys.modules:
        empty = types.ModuleType(package)
        empty.__path__ = [str(place)]
        sys.modules[package] = empty
    for neighbour, stub in stubs.items():
        sys.modules.setdefault(f"{package}.{neighbour}", stub)
    return importlib.import_module(f"{package}.{module}")


@contextmanager
def standing_in(**modules: types.ModuleType) -> Iterator[None]:
    """While a file is imported: stand-ins for libraries that it asks for and nothing here uses, with `__` for dots."""
    names = {name.replace("__", "."): made for name, made in modules.items()}
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    try:
        yield
    finally:
        for name, was in before.items():
            sys.modules.pop(name) if was is None else sys.modules.update({name: was})


def take(path: Path, name: str, **known: Any) -> Any:
    """One function or class, or `Class.method`, out of a file that cannot be imported; `known` are the names that it uses."""
    body: list[ast.stmt] = ast.parse(path.read_text("utf-8")).body
    for part in name.split("."):
        found = next(node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part)
        body = found.body
    namespace = {"torch": torch, "nn": torch.nn, "F": F, **known}
    exec(compile(ast.Module([found], []), str(path), "exec"), namespace)
    return namespace[found.name]


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, k_lens: Any = None, **kwargs: Any) -> torch.Tensor:
    """Wan's `flash_attention` for sequences without padding, `[B, L, N, D]`."""
    assert k_lens is None or bool((torch.as_tensor(k_lens) == k.shape[1]).all())
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def agree(ours: torch.Tensor, theirs: torch.Tensor, within: float) -> None:
    """Assert equal shapes and a largest difference of at most `within`, which is logged: `pytest --log-cli-level=INFO` shows it."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} against {tuple(theirs.shape)}"
    away = (ours.detach().double() - theirs.detach().double()).abs().max().item()
    logging.getLogger("parity").info("largest difference %.1e of values up to %.1e", away, theirs.abs().max().item())
    assert away <= within, f"{away:.2e} apart, {within:.0e} allowed"
