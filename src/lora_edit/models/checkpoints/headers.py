"""A checkpoint file's header: its tensors, and whether the file is whole; no tensor is read, whatever the file's size.

The header is parsed here instead of by `safetensors.safe_open`, which exposes no byte ranges (`file_identity.py` samples tensors by them)
and does not say how many bytes of a truncated file are missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, NonNegativeInt

from lora_edit.errors import ModelError
from lora_edit.limits import MAX_TENSORS
from lora_edit.text_files import parse_json, read_bytes_file

PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
INDEX_SUFFIX = ".safetensors.index.json"
_SHARD_PATTERN = re.compile(r"-\d{5}-of-(\d{5})\.safetensors$")
_LENGTH_BYTES = 8  # a safetensors file starts with its header's length; the header is a JSON object
_MAX_HEADER_BYTES = 100_000_000  # bytes of a header that safetensors itself takes


class _TensorEntry(BaseModel):
    """Entry of a tensor in a safetensors header."""

    dtype: str
    shape: tuple[NonNegativeInt, ...]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]


class _HeaderEntries(BaseModel):
    """The JSON object of a safetensors header."""

    metadata: dict[str, str]
    tensors: dict[str, _TensorEntry]


@dataclass(frozen=True)
class Header:
    """Header of one safetensors file.

    By key: `shapes`, `dtypes` (safetensors' names, such as F8_E4M3) and `byte_ranges` (first byte in the file, and the one behind the
    last). `metadata` is the file's own.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    byte_ranges: dict[str, tuple[int, int]]
    metadata: dict[str, str]


def is_pickle(path: Path) -> bool:
    """Check by name or first bytes whether a file is a pickle, which can run code when opened."""
    with path.open("rb") as file:
        start = file.read(_LENGTH_BYTES + 1)
    return start[_LENGTH_BYTES:] != b"{" and (path.suffix.lower() in PICKLE_SUFFIXES or start.startswith(PICKLE_MAGIC))


def read_header(path: Path) -> Header:
    """Read the header of a whole safetensors file. Raises `ModelError` for pickles, other formats, and truncated files."""
    try:
        status = path.stat()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); give a .safetensors file that is there") from error
    return _read_header(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _read_header(path: Path, size: int, changed: int) -> Header:
    """Read the header of a file of that size and time of change, once."""
    try:
        if is_pickle(path):
            raise ModelError(f"{path}: is a pickle, which can run code when opened; give this model as .safetensors (docs/loading.md)")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            text = file.read(length) if length <= _MAX_HEADER_BYTES else b""
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); give a .safetensors file that is there") from error
    if size < _LENGTH_BYTES + length and text[:1] == b"{":
        raise _build_truncation_error(path, size, _LENGTH_BYTES + length)
    try:
        entries: dict[str, Any] = parse_json(text)
        if len(entries) > MAX_TENSORS:
            raise ModelError(f"{path}: states {len(entries):,} tensors, {MAX_TENSORS:,} at most; download it again, or give another")
        header = _HeaderEntries(metadata=entries.pop("__metadata__", None) or {}, tensors=entries)
    except ModelError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not a safetensors file; download it again, or give another") from error
    data = _LENGTH_BYTES + length
    byte_ranges = {key: (data + entry.data_offsets[0], data + entry.data_offsets[1]) for key, entry in header.tensors.items()}
    shapes = {key: entry.shape for key, entry in header.tensors.items()}
    dtypes = {key: entry.dtype for key, entry in header.tensors.items()}
    expected_size = max((end for _, end in byte_ranges.values()), default=data)
    if size < expected_size:
        raise _build_truncation_error(path, size, expected_size)
    return Header(path, shapes, dtypes, byte_ranges, header.metadata)


def _build_truncation_error(path: Path, size: int, expected_size: int) -> ModelError:
    return ModelError(f"{path}: ends after {size:,} of {expected_size:,} bytes, a copy or download that broke off; download it again")


def find_shards(path: Path) -> tuple[Path, ...]:
    """Find the files of a checkpoint: itself, or those that its index names. Raises `ModelError` when one is missing, and for one shard."""
    if shard := _SHARD_PATTERN.search(path.name):
        index = path.name[: shard.start()] + INDEX_SUFFIX
        raise ModelError(f"{path}: is one of {int(shard[1])} shards of a checkpoint; give its folder, or {index} beside it")
    if not path.name.endswith(INDEX_SUFFIX):
        return (path,)
    files = read_index_files(path)
    missing = find_missing_files(files)
    if missing:
        raise ModelError(f"{path}: {len(missing)} of {len(files)} files are missing, such as {missing[0].name}; download these too")
    return files


def read_index_files(index: Path) -> tuple[Path, ...]:
    """Read the files that an index names, whether they exist or not. Raises `ModelError` for a file that is no index."""
    try:
        names = set(parse_json(read_bytes_file(index))["weight_map"].values())
        return tuple(index.parent / Path(name).name for name in sorted(names))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index}: not an index of safetensors files; download it again") from error


def find_missing_files(files: Iterable[Path]) -> list[Path]:
    """List the files that do not exist. An unfinished download has another name (`*.incomplete`), so it counts as missing."""
    return [file for file in files if not file.is_file()]


def read_config(folder: Path, part: str = "transformer") -> dict[str, Any]:
    """Read `part/config.json` of a folder in diffusers' layout. Raises `ModelError` when it is missing or no JSON."""
    path = folder / part / "config.json"
    try:
        config = parse_json(read_bytes_file(path))
    except OSError as error:
        raise ModelError(
            f"{folder}: no {part}/config.json, so this is no model in diffusers' layout; give the folder that has it, or say which model "
            "its single files are as NAME@FOLDER"
        ) from error
    except ValueError as error:
        raise ModelError(f"{path}: not a JSON file ({error}); download it again") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: holds no JSON object; download it again")
    return config
