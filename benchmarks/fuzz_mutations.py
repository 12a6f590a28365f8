"""Mutations of files for `fuzz.py`: of bytes, of tokens, and of the structure of MP4, PNG, RIFF, EBML, TIFF, safetensors, JSON and TOML."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w

EXTREME_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
TOKENS = (
    b"\x00",
    b"\xff" * 8,
    b"moov",
    b"mdat",
    b"trak",
    b"elst",
    b"IHDR",
    b"IEND",
    b"acTL",
    b"fcTL",
    b"\x1a\x45\xdf\xa3",
    b"RIFF",
    b"WEBP",
    b"GIF89a",
    b"\xff\xd8\xff",
    b"II*\x00",
    b"MM\x00*",
    b"{",
    b"}",
    b"[",
    b'"',
    b"null",
    b"NaN",
    b"-1",
    b"1e999",
    b"../",
    b"/dev/zero",
    b"%s%n",
    b"\n",
    b"\r\n",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"PK\x03\x04",
    b"\x80\x04",
    b"GGUF",
    b"ftypavif",
    b"YUV4MPEG2 W0 H0 F0:0\n",
)
DEEP = 100_000
EXTREME_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63),
    10**400,
    0.0,
    -0.0,
    1e-320,
    1e308,
    float("inf"),
    float("nan"),
    "",
    " ",
    "x",
    "x" * 20_000,
    "\x00",
    "\u202e",
    "../../../etc/passwd",
    "/dev/zero",
    "/dev/null",
    ".",
    "/",
    "~",
    "0",
    "NaN",
    "1e999",
    [],
    {},
    [0],
    [[]],
    {"a": 1},
    [0] * 5_000,
    ["x"],
    {"": ""},
)
Mutation = Callable[[bytes, random.Random], bytes]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """Flip 1 to 64 bits."""
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_head_bits(data: bytes, rng: random.Random) -> bytes:
    """Flip bits among the first 512 bytes, where headers are."""
    return flip_bits(data[:512], rng) + data[512:]


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Cut the end off."""
    return data[: rng.choice((0, 1, 4, 8, 12, len(data) // 2, len(data) - 1, rng.randrange(len(data) + 1)))]


def duplicate_chunk(data: bytes, rng: random.Random) -> bytes:
    """Insert a copy of a part somewhere else."""
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    position = rng.randrange(len(data) + 1)
    return data[:position] + data[start : min(stop, start + 4096)] * rng.choice((1, 1, 2, 50)) + data[position:]


def remove_chunk(data: bytes, rng: random.Random) -> bytes:
    """Remove a part."""
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 2, 4, 16, 256, 4096)) :]


def zero_chunk(data: bytes, rng: random.Random) -> bytes:
    """Overwrite a part with zeros, ones or noise."""
    start, length = rng.randrange(len(data) + 1), rng.choice((1, 4, 16, 256, 4096))
    length = min(length, len(data) - start)
    return data[:start] + rng.choice((b"\0" * length, b"\xff" * length, rng.randbytes(length))) + data[start + length :]


def insert_token(data: bytes, rng: random.Random) -> bytes:
    """Insert a token that some parser gives a meaning."""
    position = rng.randrange(len(data) + 1)
    return data[:position] + rng.choice(TOKENS) + data[position + rng.choice((0, 4)) :]


def write_number(data: bytes, rng: random.Random) -> bytes:
    """Overwrite 1 to 8 bytes with an extreme number; half of the time within the first 1,024 bytes."""
    size = rng.choice((1, 2, 4, 4, 8))
    limit = min(len(data), rng.choice((64, 1024, len(data)))) or 1
    position = rng.randrange(limit)
    number = rng.choice(EXTREME_NUMBERS) & (1 << 8 * size) - 1
    return data[:position] + number.to_bytes(size, rng.choice(("big", "little"))) + data[position + size :]


def replace_by_noise(data: bytes, rng: random.Random) -> bytes:
    """Replace everything behind the first bytes by noise, or everything."""
    kept = rng.choice((0, 0, 4, 12, 64))
    return data[:kept] + rng.randbytes(rng.choice((0, 1, 100, 5000)))


BYTE_MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    flip_head_bits,
    truncate,
    duplicate_chunk,
    remove_chunk,
    zero_chunk,
    insert_token,
    write_number,
    write_number,
    replace_by_noise,
)

MP4_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"dinf", b"mvex", b"moof", b"traf")


def find_boxes(data: bytes, start: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
    """Find the MP4 boxes, also nested ones, as (start, stop)."""
    stop = len(data) if stop is None else stop
    boxes = []
    while start + 8 <= stop:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        end = start + size if 8 <= size <= stop - start else stop
        boxes.append((start, end))
        if kind in MP4_PARENTS:
            boxes += find_boxes(data, start + 8, end)
        start = end
    return boxes


def mutate_mp4(data: bytes, rng: random.Random) -> bytes:
    """Change the size, the kind or a field of a box, or remove or repeat the box."""
    boxes = [box for box in find_boxes(data) if data[box[0] + 4 : box[0] + 8] != b"mdat"] or [(0, len(data))]
    start, stop = rng.choice(boxes)
    what = rng.randrange(6)
    if what == 0:
        return data[:start] + (rng.choice(EXTREME_NUMBERS) & 0xFFFFFFFF).to_bytes(4, "big") + data[start + 4 :]
    if what == 1:  # a 64-bit size
        return data[:start] + b"\0\0\0\1" + data[start + 4 : start + 8] + rng.choice(EXTREME_NUMBERS).to_bytes(8, "big") + data[start + 8 :]
    if what == 2:
        return data[:start] + data[stop:]
    if what == 3:
        return data[:stop] + data[start:stop] * rng.choice((1, 1, 3)) + data[stop:]
    if what == 4:
        return data[: start + 4] + rng.choice((b"free", b"stts", b"stsz", b"elst", b"avcC", b"\0\0\0\0")) + data[start + 8 :]
    return write_field(data, start + 8, stop, rng, "big")


def write_field(data: bytes, start: int, stop: int, rng: random.Random, order: Any) -> bytes:
    """Overwrite a field of 2, 4 or 8 bytes between two positions with an extreme number."""
    size = rng.choice((2, 4, 4, 4, 8))
    slots = range(start, max(start + 1, stop - size + 1), 2)
    position = rng.choice(slots[: rng.choice((12, 200))] or [start])
    number = rng.choice(EXTREME_NUMBERS) & (1 << 8 * size) - 1
    return data[:position] + number.to_bytes(size, order) + data[position + size :]


def mutate_png(data: bytes, rng: random.Random) -> bytes:
    """Change a chunk and correct its checksum; remove, repeat or move a chunk."""
    chunks = []
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        chunks.append((kind, data[position + 8 : position + 8 + length]))
        position += 12 + length
    if not chunks:
        return flip_bits(data, rng)
    index, what = rng.randrange(len(chunks)), rng.randrange(5)
    kind, content = chunks[index]
    if what == 0:
        del chunks[index]
    elif what == 1:
        chunks.insert(rng.randrange(len(chunks) + 1), chunks[index])
    elif what == 2:
        rng.shuffle(chunks)
    elif what == 3 and content:
        chunks[index] = (kind, rng.choice(BYTE_MUTATIONS)(content, rng))
    else:
        chunks[0] = (chunks[0][0], write_field(chunks[0][1], 0, len(chunks[0][1]), rng, "big"))
    return data[:8] + b"".join(build_png_chunk(*chunk) for chunk in chunks)


def build_png_chunk(kind: bytes, content: bytes) -> bytes:
    """Build a PNG chunk with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def mutate_riff(data: bytes, rng: random.Random) -> bytes:
    """Change the size, the kind or a field of a RIFF chunk."""
    positions = [
        0,
        *(
            index
            for token in (b"LIST", b"avih", b"strh", b"strf", b"idx1", b"VP8X", b"ANIM", b"ANMF", b"VP8 ", b"VP8L")
            for index in [data.find(token)]
            if index > 0
        ),
    ]
    position = rng.choice(positions)
    if rng.random() < 0.4:
        return data[: position + 4] + (rng.choice(EXTREME_NUMBERS) & 0xFFFFFFFF).to_bytes(4, "little") + data[position + 8 :]
    return write_field(data, position + 8, min(len(data), position + 64), rng, "little")


EBML_IDS = (
    b"\x18\x53\x80\x67",
    b"\x15\x49\xa9\x66",
    b"\x16\x54\xae\x6b",
    b"\x2a\xd7\xb1",
    b"\x44\x89",
    b"\xae",
    b"\xe0",
    b"\xb0",
    b"\xba",
    b"\x23\xe3\x83",
    b"\x1f\x43\xb6\x75",
    b"\xa3",
    b"\x10\x43\xa7\x70",
    b"\x63\xa2",
    b"\x1c\x53\xbb\x6b",
)


def mutate_ebml(data: bytes, rng: random.Random) -> bytes:
    """Change the size or the content of an element of a Matroska file."""
    found = [(name, data.find(name)) for name in EBML_IDS if data.find(name) >= 0]
    if not found:
        return flip_bits(data, rng)
    name, position = rng.choice(found)
    position += len(name)
    if rng.random() < 0.4:
        size = rng.choice((b"\x80", b"\x81", b"\xff", b"\x01" + b"\xff" * 7, b"\x01\x7f" + b"\xff" * 6, b"\x00", b"\x10\xff\xff\xff"))
        return data[:position] + size + data[position + len(size) :]
    return write_field(data, position + 1, min(len(data), position + 12), rng, "big")


def mutate_tiff(data: bytes, rng: random.Random) -> bytes:
    """Change a field of the first directory of a TIFF file."""
    order: Any = "little" if data[:2] == b"II" else "big"
    start = int.from_bytes(data[4:8], order)
    return write_field(data, min(start, len(data) - 1), min(len(data), start + 260), rng, order)


def mutate_tree(tree: Any, rng: random.Random, values: tuple[Any, ...] = EXTREME_VALUES) -> Any:
    """Replace, remove, rename or nest one node of a JSON or TOML tree."""
    parents: list[Any] = []

    def collect(node: Any) -> None:
        if isinstance(node, dict | list) and node:
            parents.append(node)
            for child in node.values() if isinstance(node, dict) else node[:20]:
                collect(child)

    collect(tree)
    if not parents or rng.random() < 0.03:
        return rng.choice(values)
    parent = rng.choice(parents)
    key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
    what = rng.randrange(8)
    if what < 5:
        parent[key] = rng.choice(values)
    elif what == 5:
        del parent[key]
    elif isinstance(parent, dict):
        parent[rng.choice(("", "x", "__metadata__", "\x00", "unknown", "x" * 5000))] = parent.pop(key) if what == 6 else rng.choice(values)
    else:
        parent[key] = [parent[key]] if what == 6 else {"x": parent[key]}
    return tree


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Change a node of a JSON file, nest it deeply, or change its text."""
    what = rng.random()
    if what < 0.25:
        return rng.choice(BYTE_MUTATIONS)(data, rng)
    if what < 0.3:
        return rng.choice(
            (b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP + b"1" + b"}" * DEEP, b"9" * 10_000, b'{"a": ' + b"9" * 10_000 + b"}")
        )
    tree = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        tree = mutate_tree(tree, rng)
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def mutate_json_lines(data: bytes, rng: random.Random) -> bytes:
    """Change one line of a file with a JSON object per line."""
    lines = data.splitlines()
    index = rng.randrange(len(lines))
    lines[index] = mutate_json(lines[index], rng)
    return b"\n".join(lines)


def mutate_toml(data: bytes, rng: random.Random) -> bytes:
    """Change a value of a TOML file, nest it deeply, or change its text."""
    import tomllib

    what = rng.random()
    if what < 0.25:
        return rng.choice(BYTE_MUTATIONS)(data, rng)
    if what < 0.3:
        huge = (
            b"seed = " + b"9" * 10_000,
            b"x = " + b"[" * DEEP + b"]" * DEEP,
            b"x" + b".a" * 5_000 + b" = 1",
            b"seed = 0x" + b"f" * 5_000,
            b"x = 1979-05-27T07:32:00Z",
            b"x = " + b"{a=" * 3_000 + b"1" + b"}" * 3_000,
        )
        return rng.choice(huge) + b"\n" + (data if rng.random() < 0.5 else b"")
    tree = tomllib.loads(data.decode())
    values = tuple(value for value in EXTREME_VALUES if value is not None and value != 10**400)
    for _ in range(rng.choice((1, 1, 2, 3))):
        tree = mutate_tree(tree, rng, values)
    try:
        return tomli_w.dumps(tree).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, AttributeError):
        return insert_token(data, rng)


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Change the JSON header, its length, or the bytes of a safetensors file."""
    what = rng.random()
    length = int.from_bytes(data[:8], "little")
    if what < 0.2:
        return rng.choice(BYTE_MUTATIONS)(data, rng)
    if what < 0.35:
        return rng.choice((*EXTREME_NUMBERS, length + 1, length - 1, 4 * 2**30)).to_bytes(8, "little") + data[8:]
    header = mutate_json(data[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


STRUCTURAL: dict[str, Mutation] = {
    **dict.fromkeys((".mp4", ".mov", ".m4v", ".avif"), mutate_mp4),
    **dict.fromkeys((".png", ".apng"), mutate_png),
    **dict.fromkeys((".avi", ".webp"), mutate_riff),
    **dict.fromkeys((".mkv", ".webm"), mutate_ebml),
    **dict.fromkeys((".tif", ".tiff"), mutate_tiff),
    ".json": mutate_json,
    ".jsonl": mutate_json_lines,
    ".toml": mutate_toml,
    ".safetensors": mutate_safetensors,
}


def mutate_file(path: Path, rng: random.Random, donors: list[Path]) -> str:
    """Change a file in place, by its structure in most cases; returns the name of the mutation. `donors` are files to splice with."""
    data = path.read_bytes()
    structural = STRUCTURAL.get(path.suffix.lower())
    names = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        if donors and rng.random() < 0.05:
            other = rng.choice(donors).read_bytes()
            cut, start = rng.randrange(len(data) + 1), rng.randrange(len(other) + 1)
            data = rng.choice((data[:cut] + other[start:], other, data + other))
            names.append("splice")
        elif structural and rng.random() < 0.6:
            try:
                data = structural(data, rng)
            except (ValueError, KeyError, IndexError, struct.error, RecursionError, AttributeError, OverflowError):
                data = flip_bits(data, rng)  # damaged by the mutation before
            names.append(structural.__name__)
        else:
            mutation = rng.choice(BYTE_MUTATIONS)
            data = mutation(data, rng)
            names.append(mutation.__name__)
    path.write_bytes(data)
    return "+".join(names)
