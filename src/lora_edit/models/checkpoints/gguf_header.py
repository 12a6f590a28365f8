"""A GGUF file's header: the shapes of its tensors, without reading a tensor (ggml `docs/gguf.md`).

The header is parsed here instead of by `gguf.GGUFReader`: package gguf is optional, and files are recognised and checked without it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from lora_edit.errors import ModelError

MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of the metadata types with a fixed size."""
_VERSIONS = (2, 3)
_MAX_ENTRIES = 1_000_000
"""Maximum tensors or entries of a header; a damaged one may state any number."""
_MAX_BYTES = 2**40
"""Maximum bytes of a value; files are smaller."""
_MAX_DIMENSIONS = 8
"""Maximum dimensions of a tensor; ggml itself has 4."""


def read_gguf_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the tensors' shapes by key, in torch's order.

    Raises `ModelError` for other files and for files that end within the header or before their last tensor.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != MAGIC or _read_number(file, 4) not in _VERSIONS:
                raise ModelError(f"{path}: not a GGUF file that can be read; download it again, or give another")
            tensors, entries = _read_number(file, 8), _read_number(file, 8)
            if max(tensors, entries) > _MAX_ENTRIES:
                raise ModelError(f"{path}: not a readable GGUF file; download it again, or give another")
            for _ in range(entries):
                _skip(file, _read_number(file, 8))
                _skip_value(file, _read_number(file, 4))
            shapes, last_offset = {}, 0
            for _ in range(tensors):
                name = _read_bytes(file, _read_number(file, 8)).decode("utf-8", "replace")
                num_dimensions = _read_number(file, 4)
                if num_dimensions > _MAX_DIMENSIONS:
                    raise EOFError
                shapes[name] = tuple(reversed([_read_number(file, 8) for _ in range(num_dimensions)]))
                _read_number(file, 4)
                last_offset = max(last_offset, _read_number(file, 8))
            header_end = file.tell()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); give a file that is there") from error
    except EOFError as error:
        raise ModelError(f"{path}: ends within its header, a copy or download that broke off; download it again") from error
    if path.stat().st_size <= header_end + last_offset and tensors:
        raise ModelError(f"{path}: ends before its last tensor, a copy or download that broke off; download it again")
    return shapes


def _read_bytes(file: BinaryIO, count: int) -> bytes:
    if count > _MAX_ENTRIES:
        raise EOFError
    content = file.read(count)
    if len(content) < count:
        raise EOFError
    return content


def _read_number(file: BinaryIO, size: int) -> int:
    (number,) = struct.unpack("<Q" if size == 8 else "<I", _read_bytes(file, size))
    return int(number)


def _skip(file: BinaryIO, count: int) -> None:
    if count > _MAX_BYTES:
        raise EOFError
    file.seek(count, 1)


def _skip_value(file: BinaryIO, kind: int, is_item: bool = False) -> None:
    if kind == _STRING:
        _skip(file, _read_number(file, 8))
    elif kind == _ARRAY and not is_item:  # arrays of arrays are not in use
        item_kind, count = _read_number(file, 4), _read_number(file, 8)
        if item_kind in _BYTES:
            _skip(file, _BYTES[item_kind] * count)
        elif count > _MAX_ENTRIES:
            raise EOFError
        else:
            for _ in range(count):
                _skip_value(file, item_kind, is_item=True)
    elif kind in _BYTES:
        _skip(file, _BYTES[kind])
    else:
        raise EOFError
