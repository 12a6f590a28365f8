"""Event handlers of the page are short and contain no logic."""

from __future__ import annotations

import ast

from source_tree import PACKAGE, Function, parse, place

MAX_LINES = 15
NOT_HANDLERS = {"__init__"}


def test_handlers_are_short() -> None:
    violations = []
    for path in sorted((PACKAGE / "ui").glob("step_*.py")):
        methods = [each for node in parse(path).body if isinstance(node, ast.ClassDef) for each in node.body if isinstance(each, Function)]
        for method in methods:
            arguments = {argument.arg for argument in method.args.args}
            body = method.body[1:] if ast.get_docstring(method) else method.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
            if arguments & {"project_id", "project"} and method.name not in NOT_HANDLERS and lines > MAX_LINES:
                violations.append(f"{place(path, method)}: {method.name} has {lines} lines")
    assert not violations, "\n".join(violations)
