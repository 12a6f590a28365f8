"""Rules of code style that ruff and mypy do not check: sizes, seeded draws, no work on import. Each test lists every fault.

Annotations, docstrings, `print`, `global` and blind `except` clauses are ruff's (`make check`).
"""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

from source_tree import PACKAGE, ROOT, Function, dotted, nodes, package_of, parse, place, python_files

INTERFACES = {"cli", "ui"}  # the only packages that may catch every exception and register commands on import

MEDIAN_LINES, P90_LINES, MAX_LINES = 12, 40, 80
FILE_LINES = 400
SHORT_FILES = {"conditioning/method.py": 150}

# torch functions and in-place tensor methods that draw random numbers: each takes a `generator`.
TORCH_DRAWS = {
    "bernoulli",
    "multinomial",
    "normal",
    "poisson",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
}
TENSOR_DRAWS = {"bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "multinomial", "normal_", "random_", "uniform_"}
NUMPY_SEEDED = {"BitGenerator", "Generator", "PCG64", "Philox", "SeedSequence", "default_rng"}

# Calls that only build a constant. The package's own dataclasses and settings count as well.
CONSTANT_CALLS = {
    "ConfigDict", "Field", "Fraction", "MappingProxyType", "NewType", "ParamSpec", "Path", "TypeVar",
    "chain.from_iterable", "dict", "field", "float", "frozenset", "getLogger", "import_module", "logging.getLogger", "namedtuple",
    "np.array", "re.compile", "set", "tuple",
}  # fmt: skip
INTERFACE_CALLS = {"Console", "typer.Argument", "typer.Option", "typer.Typer"}
INTERFACE_STATEMENTS = {"add_typer", "callback", "command"}


def source_nodes(*, interfaces: bool = True) -> Iterator[tuple[Path, ast.AST]]:
    """Every node of the package, with or without `cli` and `ui`."""
    return ((path, node) for path, node in nodes(PACKAGE) if interfaces or package_of(path) not in INTERFACES)


def calls(*, interfaces: bool = True) -> Iterator[tuple[Path, ast.Call, str]]:
    """Every call of the package, with its file and the dotted name of its function."""
    return ((path, node, dotted(node.func)) for path, node in source_nodes(interfaces=interfaces) if isinstance(node, ast.Call))


def functions() -> list[tuple[Path, Function]]:
    """Every function and method of the package."""
    return [(path, node) for path, node in source_nodes() if isinstance(node, Function)]


def report(faults: list[str]) -> str:
    """The faults, one to a line."""
    return "\n" + "\n".join(faults)


def test_functions_are_short() -> None:
    lengths = {f"{place(path, node)} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1 for path, node in functions()}
    long = [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > MAX_LINES]
    assert not long, report(long)
    ordered = sorted(lengths.values())
    assert statistics.median(ordered) <= MEDIAN_LINES, f"median {statistics.median(ordered)} lines"
    assert statistics.quantiles(ordered, n=10)[-1] <= P90_LINES, report(
        sorted(f"{n}: {k} lines" for n, k in lengths.items() if k > P90_LINES)
    )


def test_files_are_short() -> None:
    faults = []
    for path in python_files(PACKAGE):
        lines = len(path.read_text("utf-8").splitlines())
        limit = SHORT_FILES.get(path.relative_to(PACKAGE).as_posix(), FILE_LINES)
        if lines > limit:
            faults.append(f"{path.relative_to(ROOT)}: {lines} lines, {limit} at most")
    assert not faults, report(faults)


def catches_exception(handler: ast.ExceptHandler) -> bool:
    """Whether the clause names `Exception`; ruff's BLE001 permits it where the clause logs or raises again."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return "Exception" in {dotted(each) for each in caught if each}


def test_only_interfaces_catch_every_exception() -> None:
    """The two forms that ruff's BLE001 permits: `except Exception` that logs or raises again, and `contextlib.suppress(Exception)`."""
    handlers = [(path, node) for path, node in source_nodes(interfaces=False) if isinstance(node, ast.ExceptHandler)]
    faults = [place(path, node) for path, node in handlers if catches_exception(node)]
    for path, node, name in calls(interfaces=False):
        if name.split(".")[-1] == "suppress" and {dotted(arg) for arg in node.args} & {"Exception", "BaseException"}:
            faults.append(place(path, node))
    assert not faults, report(faults)


def test_cuda_is_named_in_devices_only() -> None:
    faults = []
    for path, node in source_nodes():
        named = isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"cuda(:\d*)?", node.value)
        if named and package_of(path) != "devices":
            faults.append(place(path, node))
    assert not faults, report(faults)


def draws_unseeded(node: ast.Call, name: str) -> bool:
    """Whether the call draws random numbers from a global generator."""
    module, _, function = name.rpartition(".")
    keywords = {keyword.arg for keyword in node.keywords}
    if module in {"torch", "torch.distributions"} and function in TORCH_DRAWS:
        return "generator" not in keywords
    if module in {"np.random", "numpy.random"}:
        return function not in NUMPY_SEEDED or (function == "default_rng" and not (node.args or node.keywords))
    return (
        isinstance(node.func, ast.Attribute)
        and node.func.attr in TENSOR_DRAWS
        and module not in {"rng", "np", "numpy"}
        and "generator" not in keywords
    )


def test_random_draws_name_their_generator() -> None:
    faults = [f"{place(path, node)}: {name}" for path, node, name in calls() if draws_unseeded(node, name)]
    for path, node in source_nodes():
        modules = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if {"random", "numpy.random", "secrets"} & set(modules):
            faults.append(f"{place(path, node)}: import of {modules}")
    assert not faults, report(faults)


def record_classes() -> set[str]:
    """Names of the package's dataclasses, named tuples and pydantic models, whose construction does no work."""
    names = set()
    for _, node in source_nodes():
        if isinstance(node, ast.ClassDef):
            decorators = {dotted(each.func if isinstance(each, ast.Call) else each).split(".")[-1] for each in node.decorator_list}
            bases = {dotted(base).split(".")[-1] for base in node.bases}
            if "dataclass" in decorators or bases & {"BaseModel", "NamedTuple"}:
                names.add(node.name)
    return names


def import_time_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import, including those in class bodies."""
    for node in body:
        yield node
        if isinstance(node, ast.ClassDef):
            yield from import_time_statements(node.body)


def is_idle(node: ast.stmt, constant_calls: set[str], interface: bool) -> bool:
    """Whether the statement only defines, imports or names a constant."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.Pass | Function):
        return True
    if isinstance(node, ast.If):
        return dotted(node.test).split(".")[-1] == "TYPE_CHECKING" or ast.unparse(node.test) == "__name__ == '__main__'"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        inner = node.value.func.func if isinstance(node.value.func, ast.Call) else node.value.func
        return interface and isinstance(inner, ast.Attribute) and inner.attr in INTERFACE_STATEMENTS
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        called = [dotted(each.func) for each in ast.walk(node) if isinstance(each, ast.Call) and not inside_lambda(node, each)]
        return all(name in constant_calls or name.split(".")[-1] in constant_calls for name in called)
    return False


def inside_lambda(statement: ast.stmt, call: ast.Call) -> bool:
    """Whether a lambda within the statement defers the call."""
    return any(isinstance(each, ast.Lambda) and call in set(ast.walk(each)) for each in ast.walk(statement))


def test_importing_does_no_work() -> None:
    faults = []
    records = record_classes()
    for path in python_files(PACKAGE):
        interface = package_of(path) in INTERFACES
        constant_calls = CONSTANT_CALLS | records | (INTERFACE_CALLS if interface else set())
        faults += [place(path, node) for node in import_time_statements(parse(path).body) if not is_idle(node, constant_calls, interface)]
    assert not faults, report(faults)
