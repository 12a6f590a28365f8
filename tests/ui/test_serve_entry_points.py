"""The notebook and the Space serve the page."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from lora_edit.ui import serve
from source_tree import ROOT


def find_serve_calls(text: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and ast.unparse(node.func) == "serve"]


def test_the_notebook_serves_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cells = json.loads((ROOT / "examples" / "page.ipynb").read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    calls = []
    monkeypatch.setattr(serve, "serve", lambda *args, **kwargs: calls.append(kwargs) or "http://127.0.0.1")
    for text in code:
        exec(compile(text, "page.ipynb", "exec"), {})
    assert calls == [{"port": 7860, "wait": False, "inline": True, "height": 900}]
    assert all(not cell.get("outputs") for cell in cells)


def test_the_space_serves_the_page_with_the_tested_gradio() -> None:
    app = (ROOT / "deploy" / "space" / "app.py").read_text("utf-8")
    [call] = find_serve_calls(app)
    assert [ast.literal_eval(each) for each in call.args[:2]] == ["0.0.0.0", 7860]
    readme = (ROOT / "deploy" / "space" / "README.md").read_text("utf-8")
    pinned = re.search(r"^gradio==(.+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert pinned is not None
    assert f"sdk_version: {pinned[1]}\n" in readme
    assert "app_file: app.py\n" in readme
