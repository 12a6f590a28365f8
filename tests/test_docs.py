"""Links, paths, code and generated pages of the documentation agree with the repository."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import typer

from lora_edit import config
from lora_edit.cli.main import app
from lora_edit.types import Video
from lora_edit.video.read import read_video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video
from source_tree import PACKAGE, ROOT, parse

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README_LINES = 200
ARCHITECTURE = ROOT / "docs" / "architecture.md"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?:!?\[[^\]]*\]\(|(?:src|href)=\")([^)\s\"]+)")
COMMAND = re.compile(r"^(?:PYTHONPATH=\S+ )?lora-edit ([a-z-]+)(.*?)$", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])(--?[a-z][a-z-]*)")
SETTING = re.compile(rf"`(?:--set )?({'|'.join(config.SECTIONS)})\.(\w+)(?:`| ?=)")
REPOSITORY_PATH = re.compile(r"`((?:src|tests|docs|examples|tools|benchmarks|\.ci)/[\w./-]*\w/?)`")


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and similar hosts generate from a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def tree_paths(text: str) -> list[str]:
    """The paths in a drawn tree, relative to the repository's root.

    Each level is indented by two spaces. The first word of a line is a name, the remaining words are a comment.
    """
    parents: list[str] = []
    paths = []
    for line in text.splitlines():
        name = line.strip().split(" ")[0]
        if not name:
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        parents = [*parents[:depth], name.rstrip("/")]
        paths.append("/".join(parents))
    return paths


def architecture_tree() -> list[str]:
    """The paths in the first block of docs/architecture.md."""
    block = FENCE.search(ARCHITECTURE.read_text("utf-8"))
    assert block is not None, "docs/architecture.md has no tree in a code block"
    return tree_paths(block.group(2))


def test_local_links_resolve() -> None:
    broken = []
    for page in PAGES:
        for target in LINK.findall(prose(page)):
            path, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            file = page if not path else (page.parent / path)
            if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken, "\n".join(broken)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= README_LINES


def test_paths_named_in_the_docs_exist() -> None:
    missing = [
        f"{page.relative_to(ROOT)}: {path}" for page in PAGES for path in REPOSITORY_PATH.findall(prose(page)) if not (ROOT / path).exists()
    ]
    assert not missing, "\n".join(missing)


def test_code_blocks_in_the_docs_match_their_files() -> None:
    """A block whose first line is `# examples/name.py` contains lines of that file, verbatim."""
    stale = []
    for page in PAGES:
        for language, code in FENCE.findall(page.read_text("utf-8")):
            first, _, body = code.partition("\n")
            named = re.match(r"# ((?:examples|src|tests|tools)/\S+)$", first)
            if (
                language != "text"
                and named
                and (not (ROOT / named[1]).is_file() or body.strip() not in (ROOT / named[1]).read_text("utf-8"))
            ):
                stale.append(f"{page.relative_to(ROOT)}: {named[1]}")
    assert not stale, "\n".join(stale)


def test_every_path_in_the_drawn_tree_exists() -> None:
    missing = [path for path in architecture_tree() if not (ROOT / path).exists()]
    assert not missing, f"docs/architecture.md names what does not exist: {missing}"


def test_the_drawn_tree_names_every_package_and_top_level_file() -> None:
    drawn = set(architecture_tree())
    entries = {*PACKAGE.glob("*.py"), *(path.parent for path in PACKAGE.rglob("*/__init__.py"))} - {PACKAGE}
    missing = sorted(str(path.relative_to(ROOT)) for path in entries if str(path.relative_to(ROOT)) not in drawn)
    assert not missing, f"docs/architecture.md leaves out {missing}"


def test_every_function_in_the_figure_exists() -> None:
    """Each line of the figure of one edit names an object and `module.name`, which that module of the package defines."""
    figure = next(code for language, code in FENCE.findall(ARCHITECTURE.read_text("utf-8")) if language == "text")
    missing = []
    for line in figure.splitlines():
        module, _, name = line.split()[1].rpartition(".")
        path = PACKAGE / f"{module.replace('.', '/')}.py"
        if not path.is_file() or name not in {getattr(node, "name", "") for node in parse(path).body}:
            missing.append(f"{module}.{name}")
    assert not missing, f"docs/architecture.md: {missing}"


def documented_commands() -> Iterator[tuple[str, str, str]]:
    """Page, subcommand and arguments of each `lora-edit` line in a code block; a trailing backslash continues a line."""
    for page in PAGES:
        for _, code in FENCE.findall(page.read_text("utf-8")):
            for name, arguments in COMMAND.findall(re.sub(r"\\\n", " ", code)):
                yield str(page.relative_to(ROOT)), name, arguments.split("  ")[0].split(" # ")[0]


def test_documented_commands_and_flags_exist() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    faults = []
    for page, name, arguments in documented_commands():
        known = {flag for parameter in commands[name].params for flag in parameter.opts} if name in commands else set()
        faults += [f"{page}: lora-edit {name} {flag}" for flag in FLAG.findall(arguments) if flag not in known]
        faults += [] if name in commands else [f"{page}: lora-edit {name}"]
    assert not faults, "\n".join(faults)


def test_documented_settings_exist() -> None:
    faults = []
    for page in PAGES:
        for section, name in SETTING.findall(prose(page)):
            annotation = config.EditSettings.model_fields[section].annotation
            if name not in getattr(annotation, "model_fields", {}):
                faults.append(f"{page.relative_to(ROOT)}: {section}.{name}")
    assert not faults, "\n".join(faults)


def test_python_in_the_docs_is_valid() -> None:
    for page in PAGES:
        for language, code in FENCE.findall(page.read_text("utf-8")):
            if language == "python" and not code.startswith("# "):
                tree = ast.parse(code, filename=str(page.relative_to(ROOT)))
                for node in (each for each in tree.body if isinstance(each, ast.ImportFrom)):
                    module = importlib.import_module(str(node.module))
                    assert all(hasattr(module, alias.name) for alias in node.names), f"{page.relative_to(ROOT)}: {ast.unparse(node)}"


@pytest.mark.slow
def test_the_quickstart_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python block runs as it is, on a small clip and with few training steps."""
    get_preset = config.get_preset
    few = {"training": {"motion_steps": 2, "appearance_steps": 1}}
    monkeypatch.setattr(config, "get_preset", lambda *arguments: config.merge_tables(get_preset(*arguments), few))
    frames = torch.randint(0, 256, (5, 6, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    frames = frames.repeat_interleave(8, 1).repeat_interleave(8, 2).contiguous()
    edited = frames[0].clone()
    edited[12:28, 20:40] = torch.tensor([200, 30, 30], dtype=torch.uint8)
    monkeypatch.chdir(tmp_path)
    write_video(Path("clip.mp4"), Video(frames, Fraction(8), tuple(i / 8 for i in range(5))))
    save_image(Path("edited.png"), edited)
    blocks = [code for language, code in FENCE.findall((ROOT / "README.md").read_text("utf-8")) if language == "python"]
    assert len(blocks) == 1
    exec(compile(blocks[0], "README.md", "exec"), {})
    assert read_video(Path("edited.mp4")).num_frames == 5


@pytest.mark.parametrize("name", ["settings", "models"])
def test_generated_pages_are_up_to_date(name: str) -> None:
    """`docs/settings.md` is generated from the settings, `docs/models.md` from the model records."""
    spec = importlib.util.spec_from_file_location(f"{name}_page", ROOT / "tools" / f"{name}_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / f"{name}.md").read_text("utf-8") == module.page(), f"run tools/{name}_page.py"
