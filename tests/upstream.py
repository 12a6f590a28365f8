"""Upstream source code as an oracle, read from checkouts outside this repository (CONTRIBUTING.md, "Upstream checkouts").

`LORA_EDIT_UPSTREAM` names the folder of the checkouts. Tests of a missing checkout are skipped, with a reason that names it. Nothing is
installed: modules are loaded by path. Where a file works on import, or needs a device, single functions and classes are compiled alone.
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
REPOSITORIES = {
    "DiffSynth-Studio": "https://github.com/modelscope/DiffSynth-Studio",
    "HunyuanVideo-I2V": "https://github.com/Tencent-Hunyuan/HunyuanVideo-I2V",
    "LoRAEdit": "https://github.com/cjeen/LoRAEdit",
    "VideoX-Fun": "https://github.com/aigc-apps/VideoX-Fun",
    "Wan2.1": "https://github.com/Wan-Video/Wan2.1",
}


def skip_reason(name: str) -> str:
    """What a skipped test needs: the checkout, its address, and the variable that names its folder."""
    folder = os.environ.get(VARIABLE)
    state = f"{VARIABLE}={folder} does not contain it" if folder else f"{VARIABLE} is not set"
    return f"needs a checkout of {REPOSITORIES[name]} in the folder that {VARIABLE} names (CONTRIBUTING.md); {state}"


def checkout(name: str) -> Path:
    """The work tree of that name. Skips the test if there is none."""
    folder = Path(os.environ.get(VARIABLE) or "/nonexistent") / name
    if not folder.is_dir():
        pytest.skip(skip_reason(name))
    return folder


def load(name: str, folder: str, module: str, **stubs: types.ModuleType) -> Any:
    """Import `module` from the checkout's `folder`, as a package without its `__init__`. `stubs` replace its sibling modules."""
    path = checkout(name) / folder
    package = "upstream_" + f"{name}_{folder}".replace("/", "_").replace(".", "_")
    if package not in sys.modules:
        empty = types.ModuleType(package)
        empty.__path__ = [str(path)]
        sys.modules[package] = empty
    for neighbour, stub in stubs.items():
        sys.modules.setdefault(f"{package}.{neighbour}", stub)
    return importlib.import_module(f"{package}.{module}")


@contextmanager
def standing_in(**modules: types.ModuleType) -> Iterator[None]:
    """Replace libraries that a file imports and no test uses, for as long as the context lasts. In names, `__` stands for a dot."""
    names = {name.replace("__", "."): module for name, module in modules.items()}
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})


def take(path: Path, name: str, **known: Any) -> Any:
    """Compile one function, class or `Class.method` of a file that cannot be imported. `known` defines the names that it uses."""
    body: list[ast.stmt] = ast.parse(path.read_text("utf-8")).body
    for part in name.split("."):
        definition = next(node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part)
        body = definition.body
    namespace = {"torch": torch, "nn": torch.nn, "F": F, **known}
    exec(compile(ast.Module([definition], []), str(path), "exec"), namespace)
    return namespace[definition.name]


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, k_lens: Any = None, **kwargs: Any) -> torch.Tensor:
    """Wan's `flash_attention` for sequences without padding, `[B, L, N, D]`."""
    assert k_lens is None or bool((torch.as_tensor(k_lens) == k.shape[1]).all())
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def agree(ours: torch.Tensor, theirs: torch.Tensor, within: float) -> None:
    """Assert equal shapes and a largest difference of at most `within`. `pytest --log-cli-level=INFO` shows the difference."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} against {tuple(theirs.shape)}"
    away = (ours.detach().double() - theirs.detach().double()).abs().max().item()
    logging.getLogger("parity").info("largest difference %.1e of values up to %.1e", away, theirs.abs().max().item())
    assert away <= within, f"{away:.2e} apart, {within:.0e} allowed"
