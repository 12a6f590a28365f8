"""Rules about imports and packaging that the contracts in pyproject.toml cannot state.

`lint-imports` (part of `make check`) checks which package may import which.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from source_tree import PACKAGE, ROOT, dotted, nodes, package_of, place, python_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CONTRACTS = PROJECT["tool"]["importlinter"]["contracts"]

DISTRIBUTION_OF = {
    "c2pa": "c2pa-python", "cv2": "opencv-python-headless", "huggingface_hub": "huggingface-hub", "PIL": "pillow",
    "skimage": "scikit-image", "sklearn": "scikit-learn", "tomli_w": "tomli-w",
}  # fmt: skip


def imported_libraries(*folders: Path) -> Iterator[tuple[Path, ast.stmt, str]]:
    """The file, the node and the top-level name of every absolute import, including imports inside functions."""
    for path, node in nodes(*folders):
        if isinstance(node, ast.Import):
            yield from ((path, node, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield path, node, node.module.split(".")[0]


def is_standard(name: str) -> bool:
    """Whether the top-level module belongs to Python's standard library."""
    return name in sys.stdlib_module_names


def test_init_files_of_packages_are_empty() -> None:
    """Importing a package's `settings` must not load the package."""
    filled = [path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE and path.read_text("utf-8").strip()]
    assert not filled, f"must stay empty: {filled}"


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for path in python_files(PACKAGE)} - {PACKAGE}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_every_package_has_a_layer() -> None:
    """The contract of layers lists every package, so that a new one cannot escape it."""
    (layers,) = (contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")
    listed = {name.strip(" ()") for layer in layers for name in re.split(r"[|:]", layer)}
    packages = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()}
    assert packages <= listed, f"without a layer in pyproject.toml: {sorted(packages - listed)}"


@pytest.mark.parametrize(
    ("start", "allowed"), [("Settings modules import", {"pydantic"}), ("conditioning opens no file", {"einops", "pydantic", "torch"})]
)
def test_contracts_forbid_every_other_library(start: str, allowed: set[str]) -> None:
    """These two contracts list what must not be imported, so each declared library has to be on their lists."""
    (contract,) = (contract for contract in CONTRACTS if contract["name"].startswith(start))
    libraries = {name for _, _, name in imported_libraries(PACKAGE) if not is_standard(name)} - {"lora_edit"}
    missing = libraries - allowed - set(contract["forbidden_modules"])
    assert not missing, f"add to forbidden_modules of {contract['name']!r} in pyproject.toml: {sorted(missing)}"


def test_conditioning_calls_nothing_that_opens_files() -> None:
    calls = [(path, node) for path, node in nodes(PACKAGE / "conditioning") if isinstance(node, ast.Call)]
    faults = [f"{place(path, node)}: open" for path, node in calls if dotted(node.func) in {"open", "torch.load", "torch.save"}]
    assert not faults, "\n".join(faults)


def test_every_library_is_declared() -> None:
    """A module that the package imports is a dependency in pyproject.toml, so that a bare install has it."""
    project = PROJECT["project"]
    required = {re.split(r"[><=\[;]", text)[0] for text in project["dependencies"]}
    optional = {re.split(r"[><=\[;]", text)[0] for extra in ("segment", "ui") for text in project["optional-dependencies"][extra]}
    faults = []
    for path, node, name in imported_libraries(PACKAGE):
        # Optional libraries are imported inside functions; `ui` is imported only where its extra is installed.
        declared = required | optional if node.col_offset > 0 or package_of(path) == "ui" else required
        if not is_standard(name) and name != "lora_edit" and DISTRIBUTION_OF.get(name, name) not in declared:
            faults.append(f"{place(path, node)}: {name} is not a dependency")
    assert not faults, "\n".join(faults)


def test_the_wheel_contains_every_data_file() -> None:
    """Each tracked file of the package that is not Python matches a pattern of package-data.

    An editable install reads the source folder and so hides a missing pattern. The wheel is not built here: setuptools
    expands these patterns with `glob` relative to the package, `**` included, and so does this test.
    """
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout: this folder has no .git, so its tracked files are unknown")
    listing = subprocess.run(["git", "ls-files", "-z", "src"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    tracked = {ROOT / name for name in listing.split("\0") if name and not name.endswith(".py")}
    packaged = {
        path
        for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in ROOT.joinpath("src", *package.split(".")).glob(f"{pattern}/*" if pattern.endswith("**") else pattern)
    }
    missing = sorted(str(path.relative_to(ROOT)) for path in tracked - packaged if path.exists())
    assert tracked and not missing, f"not in pyproject.toml's package-data: {missing}"


def loaded_after(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after the statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_package_loads_no_model_library() -> None:
    assert not {"diffusers", "transformers", "peft", "gradio", "matplotlib"} & loaded_after("import lora_edit")


def test_importing_the_pipeline_loads_no_model_library() -> None:
    """Model libraries take longer to load than torch, and invalid inputs and previews do not need them."""
    assert not {"diffusers", "transformers", "peft", "matplotlib"} & loaded_after("import lora_edit.pipeline")


def test_importing_the_package_touches_no_device() -> None:
    code = "import lora_edit, sys; torch = sys.modules.get('torch'); sys.exit(bool(torch and torch.cuda.is_initialized()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
