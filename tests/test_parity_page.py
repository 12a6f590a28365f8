"""The page of comparisons names only tests that exist."""

from __future__ import annotations

import re

from source_tree import ROOT, Function, parse

PAGE = ROOT / "docs" / "parity.md"


def named_tests() -> list[tuple[str, str]]:
    """File and function of every test that the page names."""
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text("utf-8"))


def test_every_named_test_exists() -> None:
    missing = []
    for file, name in named_tests():
        path = ROOT / file
        if not path.is_file() or name not in {node.name for node in parse(path).body if isinstance(node, Function)}:
            missing.append(f"{file}::{name}")
    assert not missing, f"docs/parity.md names what does not exist: {missing}"


def test_every_row_names_a_test_or_says_why_not() -> None:
    rows = [line.split("|")[1:-1] for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| \d+ \|", line)]
    bare = [row[0].strip() for row in rows if "::test_" not in row[5] and "not offered" not in row[3]]
    numbers = [int(row[0]) for row in rows]
    assert not bare and numbers == sorted(set(numbers))


def test_every_comparison_with_upstream_is_on_the_page() -> None:
    """The tests that read checkouts are there for this page."""
    named = set(named_tests())
    for file in ("tests/test_reference_parity.py", "tests/models/test_official_wan.py"):
        own = {node.name for node in parse(ROOT / file).body if isinstance(node, Function) and node.name.startswith("test_")}
        assert own <= {name for place, name in named if place == file}
