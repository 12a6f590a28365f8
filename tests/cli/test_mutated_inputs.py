"""A small part of `benchmarks/fuzz.py` in one process: mutated files of every kind give a result or one line that names them."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from lora_edit.cli.main import app

KINDS = ("video", "image", "mask", "settings", "options", "lora", "checkpoint", "cases", "answers")
CHEAP = ("frame", "import", "models", "evaluate", "study")
"""Commands that take a fraction of a second; `new` reads the same files by the same functions."""
CASES = 12


@pytest.fixture(scope="module")
def fuzz_kinds() -> ModuleType:
    folder = str(Path(__file__).parents[2] / "benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [folder, *sys.path])
        return importlib.import_module("fuzz_kinds")


@pytest.fixture(scope="module")
def corpus(fuzz_kinds: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All inputs except a trained run."""
    folder = tmp_path_factory.mktemp("fuzz") / "corpus"
    corpus_module = sys.modules["fuzz_corpus"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "write_run", lambda folder: None)
        corpus_module.build_corpus(folder)
    (folder / "run" / "lora").mkdir(parents=True)
    (folder / "run" / "lora" / "edit.safetensors").write_bytes((folder / "loras" / "peft.safetensors").read_bytes())
    (folder / "run" / "edit.toml").write_text((folder / "edit.toml").read_text("utf-8"))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_results_or_named(
    kind: str, corpus: Path, fuzz_kinds: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []
    for number in range(CASES):
        folder = tmp_path / str(number)
        (folder / "out").mkdir(parents=True)
        monkeypatch.chdir(folder)
        case = fuzz_kinds.KINDS[kind][1](corpus, folder, random.Random(f"{kind}:{number}"))
        if case.words[0] not in CHEAP and kind not in ("settings", "options"):
            continue
        sources = {path: path.read_bytes() for path in case.changed}
        outcome = CliRunner().invoke(app, case.words)
        error = outcome.stderr.splitlines()[-1] if outcome.stderr else ""
        call = f"{case.words} [{case.mutation}]: {error}"
        assert outcome.exit_code in (0, 2), call
        if outcome.exit_code == 2:
            assert error.startswith("error: "), call
            assert any(name in error for name in (*(path.name for path in case.changed), *case.names)), call
        assert all(path.read_bytes() == content for path, content in sources.items()), call
        ended.append(outcome.exit_code)
    assert ended, "no case ran"
