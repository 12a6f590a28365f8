"""Links, paths, code and generated pages of the documentation agree with the repository."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from source_tree import PACKAGE, ROOT, package_of, python_files

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
    entries = {path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))}
    missing = sorted(str(path.relative_to(ROOT)) for path in entries if str(path.relative_to(ROOT)) not in drawn)
    assert not missing, f"docs/architecture.md leaves out {missing}"


def test_the_import_table_is_written_down() -> None:
    """Each package and each top-level module has a row in docs/architecture.md."""
    text = ARCHITECTURE.read_text("utf-8")
    rows = {name.strip(" `") for row in re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE) for name in row.split(",")}
    names = {package_of(path) for path in python_files(PACKAGE)} - {""}
    assert names <= rows, f"no row for {sorted(names - rows)}"


@pytest.mark.parametrize("name", ["settings", "models"])
def test_generated_pages_are_up_to_date(name: str) -> None:
    """`docs/settings.md` is generated from the settings, `docs/models.md` from the model records."""
    spec = importlib.util.spec_from_file_location(f"{name}_page", ROOT / "tools" / f"{name}_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / f"{name}.md").read_text("utf-8") == module.page(), f"run tools/{name}_page.py"
