"""The page holds no logic: its handlers are a few lines that call what does the work."""

from __future__ import annotations

import ast

from source_tree import PACKAGE, Function, parse, place

LINES = 15
NOT_HANDLERS = {"__init__", "_layout"}


def test_handlers_are_a_few_lines() -> None:
    faults = []
    for path in sorted((PACKAGE / "ui").glob("step_*.py")):
        methods = [each for node in parse(path).body if isinstance(node, ast.ClassDef) for each in node.body if isinstance(each, Function)]
        for method in methods:
            arguments = {argument.arg for argument in method.args.args}
            body = method.body[1:] if ast.get_docstring(method) else method.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
            if arguments & {"name", "folder"} and method.name not in NOT_HANDLERS and lines > LINES:
                faults.append(f"{place(path, method)}: {method.name} has {lines} lines")
    assert not faults, "\n".join(faults)
