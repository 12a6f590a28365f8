"""Every test named in docs/parity.md exists, and every parity test is named there."""

from __future__ import annotations

import re

from source_tree import ROOT, Function, parse

PAGE = ROOT / "docs" / "parity.md"


def named_tests() -> list[tuple[str, str]]:
    """The file and the function of every test named on the page."""
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text("utf-8"))


def test_every_named_test_exists() -> None:
    missing = []
    for file, name in named_tests():
        path = ROOT / file
        if not path.is_file() or name not in {node.name for node in parse(path).body if isinstance(node, Function)}:
            missing.append(f"{file}::{name}")
    assert not missing, f"docs/parity.md names tests that do not exist: {missing}"


def test_every_row_names_a_test_or_a_reason() -> None:
    rows = [line.split("|")[1:-1] for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| \d+ \|", line)]
    bare = [row[0].strip() for row in rows if "::test_" not in row[5] and "not offered" not in row[3]]
    numbers = [int(row[0]) for row in rows]
    assert not bare and numbers == sorted(set(numbers))


def test_every_comparison_with_upstream_is_on_the_page() -> None:
    """The tests that read upstream checkouts exist for this page."""
    named = set(named_tests())
    for file in ("tests/test_reference_parity.py", "tests/models/test_official_wan.py"):
        own = {node.name for node in parse(ROOT / file).body if isinstance(node, Function) and node.name.startswith("test_")}
        assert own <= {name for path, name in named if path == file}
