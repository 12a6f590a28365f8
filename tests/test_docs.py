"""The documentation names only what exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from source_tree import PACKAGE, ROOT, python_files, room_of

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README_LINES = 200
ARCHITECTURE = ROOT / "docs" / "architecture.md"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?:!?\[[^\]]*\]\(|(?:src|href)=\")([^)\s\"]+)")
REPOSITORY_PATH = re.compile(r"`((?:src|tests|docs|examples|tools|benchmarks|\.ci)/[\w./-]*\w/?)`")


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get on the usual hosts."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def tree_paths(text: str) -> list[str]:
    """The paths that a drawn tree names, from the repository's root.

    Two spaces of indentation per level; a line's first word is a name, and the rest of the line is a remark.
    """
    parents: list[str] = []
    found = []
    for line in text.splitlines():
        name = line.strip().split(" ")[0]
        if not name:
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        parents = [*parents[:depth], name.rstrip("/")]
        found.append("/".join(parents))
    return found


def architecture_tree() -> list[str]:
    """The paths in the first block of docs/architecture.md."""
    block = FENCE.search(ARCHITECTURE.read_text("utf-8"))
    assert block is not None, "docs/architecture.md draws no tree"
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


def test_code_shown_in_the_docs_is_a_file() -> None:
    """A block whose first line is `# examples/name.py` shows lines of that file, which exists and still holds them."""
    stale = []
    for page in PAGES:
        for language, code in FENCE.findall(page.read_text("utf-8")):
            first, _, rest = code.partition("\n")
            named = re.match(r"# ((?:examples|src|tests|tools)/\S+)$", first)
            if (
                language != "text"
                and named
                and (not (ROOT / named[1]).is_file() or rest.strip() not in (ROOT / named[1]).read_text("utf-8"))
            ):
                stale.append(f"{page.relative_to(ROOT)}: {named[1]}")
    assert not stale, "\n".join(stale)


def test_every_path_in_the_drawn_tree_exists() -> None:
    missing = [path for path in architecture_tree() if not (ROOT / path).exists()]
    assert not missing, f"docs/architecture.md names what does not exist: {missing}"


def test_the_drawn_tree_names_every_room_and_file() -> None:
    drawn = set(architecture_tree())
    rooms = {path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))}
    missing = sorted(str(path.relative_to(ROOT)) for path in rooms if str(path.relative_to(ROOT)) not in drawn)
    assert not missing, f"docs/architecture.md leaves out {missing}"


def test_the_import_table_is_written_down() -> None:
    """Each room of the source has a row in docs/architecture.md."""
    text = ARCHITECTURE.read_text("utf-8")
    rows = {name.strip(" `") for row in re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE) for name in row.split(",")}
    rooms = {room_of(path) for path in python_files(PACKAGE)} - {""}
    assert rooms <= rows, f"no row for {sorted(rooms - rows)}"


@pytest.mark.parametrize("name", ["settings", "models"])
def test_written_pages_are_up_to_date(name: str) -> None:
    """`docs/settings.md` says what the settings say, `docs/models.md` what the catalogue says."""
    spec = importlib.util.spec_from_file_location(f"{name}_page", ROOT / "tools" / f"{name}_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / f"{name}.md").read_text("utf-8") == module.page(), f"run tools/{name}_page.py"
