"""The house's habits as numbers and bans, held against the source. Each test lists every fault with its place."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

from source_tree import PACKAGE, ROOT, Function, dotted, nodes, parse, place, python_files, room_of

DOORS = {"cli", "ui"}  # the only rooms that print and that catch whatever comes

MEDIAN_LINES, P90_LINES, MAX_LINES = 12, 40, 80
FILE_LINES = 400
SHORT_FILES = {"conditioning/method.py": 150, "pipeline.py": 150}

# torch functions that draw, and tensor methods that draw in place: each takes a `generator`.
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

# Calls that make a constant and do nothing else; frozen records and settings of the package's own count as well.
CONSTANT_CALLS = {
    "ConfigDict", "Field", "Fraction", "MappingProxyType", "NewType", "ParamSpec", "Path", "TypeVar",
    "dict", "field", "float", "frozenset", "getLogger", "logging.getLogger", "namedtuple", "np.array", "re.compile", "set", "tuple",
}  # fmt: skip
DOOR_CALLS = {"Console", "typer.Argument", "typer.Option", "typer.Typer"}
DOOR_STATEMENTS = {"add_typer", "callback", "command"}


def source_nodes(*, doors: bool = True) -> Iterator[tuple[Path, ast.AST]]:
    """Every node of the package, with or without the rooms that face people."""
    return ((path, node) for path, node in nodes(PACKAGE) if doors or room_of(path) not in DOORS)


def calls(*, doors: bool = True) -> Iterator[tuple[Path, ast.Call, str]]:
    """Every call of the package and the dotted name that is called."""
    return ((path, node, dotted(node.func)) for path, node in source_nodes(doors=doors) if isinstance(node, ast.Call))


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


def public_names(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """The module, its public functions and classes, and those classes' public methods."""
    yield path.name, parse(path)
    for node in parse(path).body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                yield from ((f"{node.name}.{member.name}", member) for member in node.body if is_public_method(member))


def is_public_method(node: ast.AST) -> bool:
    """A method that is not private, magic, an overload or a property's setter."""
    if not isinstance(node, Function) or node.name.startswith("_"):
        return False
    decorators = {dotted(decorator).split(".")[-1] for decorator in node.decorator_list}
    return not decorators & {"overload", "override", "setter"}


def test_public_names_have_docstrings() -> None:
    files = [path for path in python_files(PACKAGE, ROOT / "tools") if path.read_text("utf-8").strip()]
    faults = [f"{place(path, node)}: {name}" for path in files for name, node in public_names(path) if ast.get_docstring(node) is None]
    assert not faults, report(faults)


def test_functions_are_annotated() -> None:
    faults = []
    for path, node in functions():
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        bare = [arg.arg for arg in every if arg and arg.annotation is None and arg.arg not in {"self", "cls"}]
        if bare or node.returns is None:
            faults.append(f"{place(path, node)}: {node.name} ({', '.join(bare) or 'return'})")
    assert not faults, report(faults)


def test_only_the_doors_print() -> None:
    faults = [place(path, node) for path, node, name in calls(doors=False) if name in {"print", "sys.stdout.write", "sys.stderr.write"}]
    assert not faults, report(faults)


def test_nothing_is_global() -> None:
    faults = [place(path, node) for path, node in source_nodes() if isinstance(node, ast.Global)]
    assert not faults, report(faults)


def catches_everything(handler: ast.ExceptHandler) -> bool:
    """A bare `except`, `except Exception`, or `except BaseException` that does not end by raising again."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {dotted(each) if each else "" for each in caught}
    last = handler.body[-1]
    raises_again = isinstance(last, ast.Raise) and last.exc is None
    return "Exception" in names or (bool(names & {"", "BaseException"}) and not raises_again)


def test_only_the_doors_catch_everything() -> None:
    faults = [
        place(path, node) for path, node in source_nodes(doors=False) if isinstance(node, ast.ExceptHandler) and catches_everything(node)
    ]
    for path, node, name in calls(doors=False):
        if name.split(".")[-1] == "suppress" and {dotted(arg) for arg in node.args} & {"Exception", "BaseException"}:
            faults.append(place(path, node))
    assert not faults, report(faults)


def test_cuda_is_named_in_devices_only() -> None:
    faults = []
    for path, node in source_nodes():
        named = isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"cuda(:\d*)?", node.value)
        if named and room_of(path) != "devices":
            faults.append(place(path, node))
    assert not faults, report(faults)


def draws_unseeded(node: ast.Call, name: str) -> bool:
    """Does the call draw random numbers from a global generator?"""
    module, _, function = name.rpartition(".")
    given = {keyword.arg for keyword in node.keywords}
    if module in {"torch", "torch.distributions"} and function in TORCH_DRAWS:
        return "generator" not in given
    if module in {"np.random", "numpy.random"}:
        return function not in NUMPY_SEEDED or (function == "default_rng" and not (node.args or node.keywords))
    return (
        isinstance(node.func, ast.Attribute)
        and node.func.attr in TENSOR_DRAWS
        and module not in {"rng", "np", "numpy"}
        and "generator" not in given
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
    """Names of the package's dataclasses, named tuples and pydantic models: making one does no work."""
    names = set()
    for _, node in source_nodes():
        if isinstance(node, ast.ClassDef):
            decorators = {dotted(each.func if isinstance(each, ast.Call) else each).split(".")[-1] for each in node.decorator_list}
            bases = {dotted(base).split(".")[-1] for base in node.bases}
            if "dataclass" in decorators or bases & {"BaseModel", "NamedTuple"}:
                names.add(node.name)
    return names


def import_time_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported, those in class bodies included."""
    for node in body:
        yield node
        if isinstance(node, ast.ClassDef):
            yield from import_time_statements(node.body)


def is_idle(node: ast.stmt, constant_calls: set[str], door: bool) -> bool:
    """Does the statement only define, import or name a constant?"""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.Pass | Function):
        return True
    if isinstance(node, ast.If):
        return dotted(node.test).split(".")[-1] == "TYPE_CHECKING" or ast.unparse(node.test) == "__name__ == '__main__'"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        inner = node.value.func.func if isinstance(node.value.func, ast.Call) else node.value.func
        return door and isinstance(inner, ast.Attribute) and inner.attr in DOOR_STATEMENTS
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        called = [dotted(each.func) for each in ast.walk(node) if isinstance(each, ast.Call) and not inside_lambda(node, each)]
        return all(name in constant_calls or name.split(".")[-1] in constant_calls for name in called)
    return False


def inside_lambda(statement: ast.stmt, call: ast.Call) -> bool:
    """Is the call deferred by a lambda within the statement?"""
    return any(isinstance(each, ast.Lambda) and call in set(ast.walk(each)) for each in ast.walk(statement))


def test_importing_does_no_work() -> None:
    faults = []
    records = record_classes()
    for path in python_files(PACKAGE):
        door = room_of(path) in DOORS
        constant_calls = CONSTANT_CALLS | records | (DOOR_CALLS if door else set())
        faults += [place(path, node) for node in import_time_statements(parse(path).body) if not is_idle(node, constant_calls, door)]
    assert not faults, report(faults)
