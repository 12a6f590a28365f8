"""Properties of all parsers of text that people and other programs write: a value, or an `InputError` of one line; never anything else."""

from __future__ import annotations

import json
import struct
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_edit.cli.lora_file import describe_lora
from lora_edit.cli.options import parse_box, parse_keyframe, parse_loras
from lora_edit.cli.prompts import POINT_SYNTAX, parse_coordinates
from lora_edit.config import EditSettings, dump_toml, parse_assignment, read_toml, resolve_settings
from lora_edit.errors import InputError
from lora_edit.loras.files import read_lora
from lora_edit.models.checkpoints.gguf_header import read_gguf_shapes
from lora_edit.models.checkpoints.headers import read_config, read_header, read_index_files

FAST = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])

INPUT: dict[str, Any] = {"source": "a.mp4", "first_frame": "a.png"}
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, float("inf"), float("nan")]))
TEXTS = st.one_of(st.text(max_size=30), st.sampled_from(["", "\0", "../x", "/dev/zero", "x" * 5000, "nan", "1e999", "\u202e"]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)
TOML = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
SETTINGS = st.sampled_from(
    [(section, name) for section, field in EditSettings.model_fields.items() for name in getattr(field.annotation, "model_fields", {})]
    + [(name, "") for name in ("model", "prompt", "trigger", "preset", "seed", "unknown")]
)


def returns_or_refuses(function: Callable[[], Any]) -> Any:
    """Call a parser: its value, or the `InputError` that it raises."""
    try:
        return function()
    except InputError as error:
        return error


@FAST
@given(SETTINGS, TOML)
def test_settings_of_any_type_are_values_or_refused(setting: tuple[str, str], value: Any) -> None:
    """Accepted settings survive being written and read again."""
    section, name = setting
    tables = {"input": INPUT, **({section: {name: value}} if name and section != "input" else {section: value} if not name else {})}
    resolved = returns_or_refuses(lambda: resolve_settings(tables))
    if isinstance(resolved, EditSettings) and value == value:  # NaN differs from itself
        assert resolve_settings(tomllib.loads(dump_toml(resolved))) == resolved


@FAST
@given(st.text(max_size=60), TEXTS)
def test_assignments_of_any_text_are_tables_or_refused(text: str, value: str) -> None:
    for assignment in (text, f"training.motion_steps={value}", f"seed={value}", f"training.{text}={value}"):
        returns_or_refuses(lambda assignment=assignment: resolve_settings({"input": INPUT}, [assignment]))


@pytest.mark.parametrize(
    "value", ["[" * 5000 + "]" * 5000, "9" * 5000, "0x" + "f" * 5000, "{a=" * 3000 + "1" + "}" * 3000, "\0", "x" * 30_000]
)
def test_huge_values_are_refused_in_one_line(value: str) -> None:
    """Deep nesting, and numbers that Python neither parses nor prints."""
    error = returns_or_refuses(lambda: resolve_settings({"input": INPUT}, [f"seed={value}"]))
    assert isinstance(error, InputError) and len(str(error)) < 700
    returns_or_refuses(lambda: parse_assignment(f"model={value}"))


@FAST
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode), st.dictionaries(TEXTS, TOML, max_size=3).map(tomli_w.dumps)))
def test_settings_files_of_any_content(tmp_path: Path, content: bytes | str) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
    tables = returns_or_refuses(lambda: read_toml(file))
    assert isinstance(tables, dict) or "a.toml" in str(tables)


@FAST
@given(
    st.one_of(
        st.text(max_size=30),
        st.lists(st.sampled_from(["1", "-1", "nan", "1e999", "9" * 5000, "", "\u0663", "1_0"]), max_size=5).map(",".join),
    ),
    st.sampled_from(["", ":0", ":-1", ":x", "#a", ":1#b", "@2", ":" + "9" * 5000]),
)
def test_prompts_of_any_text(numbers: str, suffix: str) -> None:
    for text in (numbers + suffix, suffix, f"2={numbers}", f"{numbers}=x", f"x.safetensors:{numbers}"):
        for parse in (parse_box, lambda text: parse_coordinates("--point", text, POINT_SYNTAX, "1"), lambda text: parse_loras([text])):
            returns_or_refuses(lambda parse=parse, text=text: parse(text))
        returns_or_refuses(lambda text=text: parse_keyframe("--reference", text))
    assert isinstance(returns_or_refuses(lambda: parse_keyframe("--reference", "9" * 5000 + "=x")), InputError)


def write_safetensors(file: Path, header: Any, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + b"\0" * 64)
    return file


TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from(["F32", "BF16", "x"]), JSON),
        "shape": st.one_of(st.lists(st.integers(-1, 9), max_size=4), JSON),
        "data_offsets": st.one_of(st.tuples(st.integers(0, 64), st.integers(0, 64)).map(list), JSON),
    },
)
HEADERS = st.dictionaries(
    st.one_of(st.sampled_from(["blocks.0.q.lora_A.weight", "blocks.0.q.lora_B.weight", "blocks.0.q.alpha", "__metadata__"]), TEXTS),
    st.one_of(TENSOR, JSON),
    max_size=4,
)


@FAST
@given(st.one_of(HEADERS, JSON, st.binary(max_size=60)), st.sampled_from([None, None, 0, 2**32, 2**64 - 1]))
def test_headers_of_any_content(tmp_path: Path, header: Any, length: int | None) -> None:
    """By all three readers; whatever is accepted has shapes of numbers."""
    file = write_safetensors(tmp_path / "a.safetensors", header, length)
    for read in (read_header, describe_lora, read_lora):
        value = returns_or_refuses(lambda read=read: read(file))
        assert not isinstance(value, InputError) or "a.safetensors" in str(value)
    accepted = returns_or_refuses(lambda: read_header(file))
    if not isinstance(accepted, InputError):
        assert all(type(size) is int and size >= 0 for shape in accepted.shapes.values() for size in shape)
        assert all(isinstance(value, str) for value in accepted.metadata.values())


@pytest.mark.parametrize(
    "header", [b"[" * 100_000, b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b"]}}", b'{"__metadata__": {"a": 1}}']
)
def test_absurd_headers(tmp_path: Path, header: bytes) -> None:
    file = write_safetensors(tmp_path / "a.safetensors", header)
    for read in (read_header, describe_lora, read_lora):
        assert isinstance(returns_or_refuses(lambda read=read: read(file)), InputError)


def test_files_of_too_many_tensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_edit.models.checkpoints.headers.MAX_TENSORS", 2)
    file = write_safetensors(tmp_path / "a.safetensors", {name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in "abc"})
    with pytest.raises(InputError, match=r"a\.safetensors: states 3 tensors, 2 at most"):
        read_header(file)


@FAST
@given(JSON)
def test_configurations_and_indices_of_any_content(tmp_path: Path, content: Any) -> None:
    (tmp_path / "transformer").mkdir(exist_ok=True)
    for file in (tmp_path / "transformer" / "config.json", tmp_path / "a.safetensors.index.json"):
        file.write_text(json.dumps(content), "utf-8", "surrogatepass")
    for read in (lambda: read_config(tmp_path), lambda: read_index_files(tmp_path / "a.safetensors.index.json")):
        value = returns_or_refuses(read)
        assert not isinstance(value, InputError) or str(tmp_path) in str(value)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<IQQ", 3, 2**60, 2**60),
        struct.pack("<IQQQ", 3, 1, 1, 2**63),
        struct.pack("<IQQQ", 3, 1, 1, 1) + b"a" + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000,
        struct.pack("<IQQQ", 3, 1, 1, 1) + b"a" + struct.pack("<IIQ", 9, 8, 2**60),
        struct.pack("<IQQQ", 3, 1, 0, 1) + b"a" + struct.pack("<I", 2**31 - 1) + struct.pack("<Q", 2) * 10,
    ],
    ids=["tensors", "string", "nested arrays", "array", "dimensions"],
)
def test_absurd_gguf_headers(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + content + b"\0" * 64)
    with pytest.raises(InputError, match=r"a\.gguf"):
        read_gguf_shapes(tmp_path / "a.gguf")


def test_patterns_of_a_lora_cannot_stall(tmp_path: Path) -> None:
    """A pattern of layer names whose matching would take time that grows exponentially with the name."""
    keys = {
        f"transformer.{'a' * 40}.lora_{part}.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * i, 16 * i + 16]}
        for i, part in enumerate("AB")
    }
    settings_text = json.dumps({"transformer.alpha_pattern": {"(" * 9 + "a" + "+)" * 9 + "+b": 1.0}, "transformer.lora_alpha": 2})
    text = json.dumps({"__metadata__": {"lora_adapter_metadata": settings_text}, **keys}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 32)
    with pytest.raises(InputError, match=r"a\.safetensors: damaged, the alpha .* too complex"):
        read_lora(tmp_path / "a.safetensors")
