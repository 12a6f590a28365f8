"""No code unpickles, evaluates text, or starts a shell. Ruff's rules S (flake8-bandit) check most of it; this covers the rest."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from source_tree import PACKAGE, ROOT, dotted, nodes, place

FOLDERS = (PACKAGE, *(ROOT / name for name in ("tools", "benchmarks", "examples", "deploy")))

UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
"""Modules that run code when they read a file."""

ALLOWED_IMPORTS = {("evaluation/lpips.py", "pickle"), ("training/checkpoint.py", "pickle")}
"""Only for the name of an exception, `pickle.UnpicklingError`."""

ALLOWED_CALLS = {"src/lora_edit/evaluation/deqa.py", "tools/deqa_scores.py"}
"""The files that load DeQA's own code, only where someone asks for that metric by name and has downloaded it; SECURITY.md says so."""

SHELL_CALLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "commands.getoutput", "pty.spawn"}
CODE_CALLS = {"eval", "exec", "compile", "__import__", "runpy.run_path", "code.interact"}


def find_unsafe(node: ast.AST) -> str:
    """Return what is unsafe in a call; an empty string if nothing is."""
    if not isinstance(node, ast.Call):
        return ""
    name, keywords = dotted(node.func), {each.arg: each.value for each in node.keywords}
    if name in SHELL_CALLS | CODE_CALLS:
        return name
    if name.startswith("subprocess.") and "shell" in keywords:
        return f"{name} with a shell"
    if name in {"torch.load", "torch.hub.load"} and not is_true(keywords.get("weights_only")):
        return f"{name} without weights_only=True"
    if name in {"np.load", "numpy.load"} and "allow_pickle" in keywords:
        return f"{name} with allow_pickle"
    if name in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}:
        return name
    if "trust_remote_code" in keywords and not is_false(keywords["trust_remote_code"]):
        return f"{name} with trust_remote_code"
    if name.endswith("from_pretrained") and is_false(keywords.get("use_safetensors")):
        return f"{name} with use_safetensors=False"
    return ""


def is_true(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def is_false(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def test_no_code_runs_what_a_file_says() -> None:
    faults = {f"{place(path, node)}: {unsafe}": unsafe for path, node in nodes(*FOLDERS) if (unsafe := find_unsafe(node))}
    allowed = {fault for fault, unsafe in faults.items() if fault.split(":")[0] in ALLOWED_CALLS and unsafe.endswith("trust_remote_code")}
    assert not set(faults) - allowed, "\n".join(faults)
    assert len(allowed) == len(ALLOWED_CALLS)


def test_no_module_is_imported_that_unpickles() -> None:
    faults = []
    for path, node in nodes(*FOLDERS):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        for name in names:
            relative = path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else ""
            if name.split(".")[0] in UNPICKLERS and (relative, name) not in ALLOWED_IMPORTS:
                faults.append(f"{place(path, node)}: {name}")
    assert not faults, "\n".join(faults)


def test_pickle_is_imported_for_its_exception_only() -> None:
    for file, _ in ALLOWED_IMPORTS:
        own = [node for path, node in nodes(PACKAGE / file.partition("/")[0]) if path.name == Path(file).name]
        used = {name for node in own if isinstance(node, ast.Attribute) and (name := dotted(node)).startswith("pickle.")}
        used |= {
            f"pickle.{each.name}" for node in own if isinstance(node, ast.ImportFrom) and node.module == "pickle" for each in node.names
        }
        assert used == {"pickle.UnpicklingError"}, file


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=flag)",
        "yaml.load(text)",
        "eval(text)",
        "exec(text)",
        "os.system(command)",
        "subprocess.run(command, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, use_safetensors=False)",
    ],
)
def test_an_unsafe_call_is_found(code: str) -> None:
    assert find_unsafe(ast.parse(code, mode="eval").body)


@pytest.mark.parametrize("code", ["torch.load(path, weights_only=True)", "np.load(path)", "yaml.safe_load(text)", "subprocess.run([a])"])
def test_a_safe_call_is_not_found(code: str) -> None:
    assert not find_unsafe(ast.parse(code, mode="eval").body)


@pytest.mark.parametrize(
    "code", ["import pickle\npickle.loads(b'')", "eval(input())", "import subprocess\nsubprocess.run('ls', shell=True)"]
)
def test_ruff_finds_unsafe_code(tmp_path: Path, code: str) -> None:
    """The rules S are switched on."""
    (tmp_path / "unsafe.py").write_text(f"{code}\n", "utf-8")
    command = [Path(sys.executable).with_name("ruff"), "check", "--config", ROOT / "pyproject.toml", "--output-format", "concise"]
    if not command[0].exists():
        pytest.skip("ruff is not installed: pip install 'lora-edit[dev]'")
    found = subprocess.run([*command, tmp_path / "unsafe.py"], capture_output=True, text=True, check=False).stdout
    assert " S" in found
