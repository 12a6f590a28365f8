"""Detection of truncated video files by the sizes that their containers state."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_SEGMENT = b"\x18\x53\x80\x67"  # ID of Matroska's element with everything after the header
_EBML = b"\x1a\x45\xdf\xa3"
_RIFF_PADDING = 1  # bytes; RIFF chunks are padded to even length, and some writers omit the last byte


def is_file_truncated(path: Path) -> bool:
    """Whether an MP4, MOV, Matroska, WebM or AVI file states more bytes than it has; False for other containers, which state none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == _EBML:
            return _find_segment_end(file) > size
        if head[:4] == b"RIFF":
            return 8 + int(struct.unpack("<I", head[4:8])[0]) > size + _RIFF_PADDING
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"):
            return _find_last_box_end(file, size) > size
    return False


def _find_last_box_end(file: BinaryIO, size: int) -> int:
    """Find the end, in bytes, of the last top-level box of an MP4 file."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if length == 0 or not kind.isascii():  # the box extends to the end of the file, or no box follows
            return size
        end += max(length, 8)
    return end


def _find_segment_end(file: BinaryIO) -> int:
    """Find the end, in bytes, of the segment of a Matroska file; 0 where the file states none, as in unfinished recordings."""
    file.seek(4)
    header = _read_ebml_number(file)
    file.seek(file.tell() + header)
    if file.read(4) != _SEGMENT:
        return 0
    length = _read_ebml_number(file)
    return file.tell() + length if length >= 0 else 0


def _read_ebml_number(file: BinaryIO) -> int:
    """Read a variable-length integer of Matroska; -1 for the reserved value "unknown"."""
    first = file.read(1)
    if not first or not first[0]:
        return -1
    bits = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> bits)]) + file.read(bits), "big")
    return -1 if value == (1 << (7 * (bits + 1))) - 1 else value
