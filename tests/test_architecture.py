"""Which room may import which: the table of docs/architecture.md as a dict, held against the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from source_tree import PACKAGE, ROOT, dotted, nodes, parse, place, python_files, room_of

WORDS = ("types", "errors")
ROOMS = ("conditioning", "models", "loras", "training", "generation", "propagation", "compositing", "evaluation", "video", "masks")
ORDER = (
    "reporting",
    "inputs",
    "captions",
    "canvas",
    "hints",
    "samples",
    "forecast",
    "estimate",
    "memory",
    "learning",
    "takes",
    "results",
    "comparison",
)
EDITOR = ("models.editors", "models.picture_editor")
FRONT = (
    *WORDS, "pipeline", "reporting", "threads", "config", "run", "inputs", "video", "masks", "models.catalog", "evaluation",
)  # fmt: skip
SETTINGS = tuple(f"{room}.settings" for room in ROOMS)

# room -> what of `lora_edit` it may import, itself aside. A name stands for all that is under it.
TABLE: dict[str, tuple[str, ...]] = {
    "types": (),
    "errors": (),
    "devices": WORDS,
    "seeds": WORDS,
    "threads": WORDS,
    "video": WORDS,
    "masks": (*WORDS, "devices", "video"),
    "conditioning": WORDS,
    "models": (*WORDS, "devices", "conditioning.sample", "video.ranges"),
    "loras": (*WORDS, "models.family", "models.catalog.headers", "models.wan_keys"),
    "training": (*WORDS, "models.family", "loras.files", "loras.match", "loras.names", "conditioning.sample", "seeds"),
    "generation": (*WORDS, "models.family", "models.unipc", "conditioning.sample", "seeds"),
    "propagation": (*WORDS, "masks", "video"),
    "compositing": (*WORDS, "masks", "video.ranges", "video.resize"),
    "evaluation": (*WORDS, "devices", "video", "masks"),
    "config": (*WORDS, *SETTINGS, "models.catalog"),
    "run": (*WORDS, *SETTINGS, "config", "video"),
    "reporting": WORDS,
    "inputs": (*WORDS, "config", "reporting", "run", "masks", "models.catalog", "video"),
    "captions": (*WORDS, "config", "devices", "inputs", "models.catalog", "models.florence", "models.settings", "reporting", "run"),
    "canvas": (*WORDS, "inputs", "compositing", "conditioning.first_frame_hint", "masks", "models.family", "propagation.predict", "video"),
    "hints": (
        *WORDS,
        "canvas",
        "compositing.region",
        "conditioning",
        "inputs",
        "propagation",
        "reporting",
        "video",
    ),
    "samples": (
        *WORDS,
        "canvas",
        "captions",
        "compositing",
        "conditioning",
        "config",
        "generation",
        "inputs",
        "hints",
        "models.catalog.known",
        "models.family",
        "models.speed",
        "reporting",
        "seeds",
        "training.loop",
        "video.flow",
        "video.ranges",
    ),
    "memory": (*WORDS, "config", "devices", "models.catalog", "models.family", "models.room"),
    "learning": (*WORDS, "config", "inputs", "memory", "models.family", "reporting", "run", "samples", "training.experts"),
    "forecast": (*WORDS, "conditioning.windows", "config", "devices", "models", "training"),
    "estimate": (
        *WORDS,
        "canvas",
        "conditioning.windows",
        "config",
        "devices",
        "forecast",
        "inputs",
        "models.catalog",
        "models.family",
        "models.room",
        "samples",
        "seeds",
        "training",
    ),
    "takes": (*WORDS, "run", "video.settings"),
    "results": (*WORDS, "captions", "config", "run", "inputs", "evaluation", "takes", "video"),
    "comparison": (
        *WORDS,
        "canvas",
        "captions",
        "config",
        "devices",
        "inputs",
        "masks",
        "memory",
        "models.catalog",
        "models.vace",
        "reporting",
        "samples",
        "video",
    ),
    "first_frame": (*WORDS, "compositing", "devices", "loras.header", "masks", *EDITOR, "reporting", "seeds", "video"),
    "pipeline": (*WORDS, *ROOMS, *ORDER, "config", "run", "devices", "seeds"),
    "studies": (*WORDS, *ROOMS, *ORDER, "config", "run", "devices", "seeds", "pipeline"),
    "cli": (
        *FRONT,
        "__version__",
        "first_frame",
        "comparison",
        "propagation",
        "loras.files",
        "loras.header",
        "loras.layouts",
        "studies.registry",
    ),
    "ui": (*FRONT, "estimate"),
    "": (*WORDS, *ROOMS, "config", "run", "devices", "seeds", "pipeline"),
}

# library -> the rooms that alone may import it
LIBRARIES: dict[str, tuple[str, ...]] = {
    "av": ("video",),
    "diffusers": ("models",),
    "transformers": ("models", "masks", "evaluation"),
    "peft": ("training",),
    "onnxruntime": ("masks",),
    "typer": ("cli",),
    "gradio": ("ui",),
}

# What the heart's room may use besides the standard library's words for types and data: no files, no models, no randomness.
CONDITIONING_MAY_USE = {"__future__", "collections", "dataclasses", "einops", "enum", "functools", "math", "pydantic", "torch", "typing"}

DISTRIBUTION_OF = {
    "cv2": "opencv-python-headless", "huggingface_hub": "huggingface-hub", "PIL": "pillow", "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}  # fmt: skip


def imported_modules(path: Path) -> Iterator[tuple[ast.AST, str]]:
    """Each import's node and full dotted name, wherever it stands in the file; `from a import b` gives `a.b`."""
    package = ("lora_edit", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                yield node, f"{source}.{alias.name}"


def allowed(room: str, name: str) -> bool:
    """May `room` import `name`, a dotted name without the leading `lora_edit`?"""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in (room, *TABLE[room]) if prefix)


def is_standard(name: str) -> bool:
    """Is the top-level module part of Python?"""
    return name in sys.stdlib_module_names


def test_every_room_stands_in_the_table() -> None:
    rooms = {room_of(path) for path in python_files(PACKAGE)}
    assert rooms <= set(TABLE), f"not in the import table: {sorted(rooms - set(TABLE))}"


def test_rooms_import_what_the_table_allows() -> None:
    faults = []
    for path in python_files(PACKAGE):
        room = room_of(path)
        for node, name in imported_modules(path):
            top, _, rest = name.partition(".")
            if top == "lora_edit" and room in TABLE and not allowed(room, rest):
                faults.append(f"{place(path, node)}: {room or 'lora_edit'} may not import {rest or top}")
    assert not faults, "\n".join(faults)


def test_training_and_generation_never_meet() -> None:
    for room, other in (("training", "generation"), ("generation", "training")):
        names = [name for path in python_files(PACKAGE / room) for _, name in imported_modules(path)]
        assert not [name for name in names if name.startswith(f"lora_edit.{other}")]


def test_nothing_imports_the_doors_or_the_studies() -> None:
    doors = {"cli", "ui", "studies"}
    for room, allowed_names in TABLE.items():
        if room not in {"cli", "ui"}:
            assert not doors & set(allowed_names)
    for room in ("cli", "ui"):
        assert not {"cli", "ui"} & set(TABLE[room])


def test_the_table_has_no_cycle_beyond_settings() -> None:
    """Rooms can be put in an order in which each imports only earlier ones."""
    left = {room: {name.split(".")[0] for name in names if not name.endswith(".settings")} - {room} for room, names in TABLE.items()}
    while left:
        ready = [room for room, needs in left.items() if not needs & set(left)]
        assert ready, f"these rooms import each other: {sorted(left)}"
        for room in ready:
            del left[room]


def test_rooms_init_files_are_empty() -> None:
    filled = [path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE and path.read_text("utf-8").strip()]
    assert not filled, f"must stay empty: {filled}"


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for path in python_files(PACKAGE)} - {PACKAGE}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_settings_are_light() -> None:
    """config.py imports every room's settings, so they may bring in no library but pydantic."""
    for path in PACKAGE.glob("*/settings.py"):
        for node, name in imported_modules(path):
            top = name.split(".")[0]
            assert is_standard(top) or top == "pydantic" or name.startswith("lora_edit.types."), f"{place(path, node)}: {name}"


def test_libraries_stay_in_their_rooms() -> None:
    faults = []
    for path in python_files(PACKAGE):
        for node, name in imported_modules(path):
            rooms = LIBRARIES.get(name.split(".")[0])
            if rooms is not None and room_of(path) not in rooms:
                faults.append(f"{place(path, node)}: {name} belongs to {', '.join(rooms)}")
    assert not faults, "\n".join(faults)


def test_conditioning_touches_no_files_models_or_randomness() -> None:
    faults = []
    for path in python_files(PACKAGE / "conditioning"):
        for node, name in imported_modules(path):
            if name.split(".")[0] not in CONDITIONING_MAY_USE | {"lora_edit"}:
                faults.append(f"{place(path, node)}: {name}")
    calls = [(path, node) for path, node in nodes(PACKAGE / "conditioning") if isinstance(node, ast.Call)]
    faults += [f"{place(path, node)}: open" for path, node in calls if dotted(node.func) in {"open", "torch.load", "torch.save"}]
    assert not faults, "\n".join(faults)


def test_every_library_is_declared() -> None:
    """A module that the package imports is a dependency in pyproject.toml, so that a bare install has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    required = {re.split(r"[><=\[;]", text)[0] for text in project["dependencies"]}
    optional = {re.split(r"[><=\[;]", text)[0] for extra in ("segment", "ui") for text in project["optional-dependencies"][extra]}
    faults = []
    for path in python_files(PACKAGE):
        for node, name in imported_modules(path):
            top = name.split(".")[0]
            # What only some people need is imported inside of functions; the page's room is never imported without its extra.
            known = required | optional if getattr(node, "col_offset", 0) > 0 or room_of(path) == "ui" else required
            if not is_standard(top) and top != "lora_edit" and DISTRIBUTION_OF.get(top, top) not in known:
                faults.append(f"{place(path, node)}: {top} is not a dependency")
    assert not faults, "\n".join(faults)


def loaded_after(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after the statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_package_loads_no_model_library() -> None:
    assert not {"diffusers", "transformers", "peft", "gradio", "matplotlib"} & loaded_after("import lora_edit")


def test_a_refused_input_and_a_preview_wait_for_no_model_library() -> None:
    """They take longer to load than torch itself, and most calls of the command end before a model is opened."""
    assert not {"diffusers", "transformers", "peft", "matplotlib"} & loaded_after("import lora_edit.pipeline")


def test_importing_the_package_touches_no_device() -> None:
    code = "import lora_edit, sys; torch = sys.modules.get('torch'); sys.exit(bool(torch and torch.cuda.is_initialized()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
