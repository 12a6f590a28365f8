"""What tells an encoder's files apart from all others, without reading them whole: part of the key of what the encoder said."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from lora_edit.models.checkpoints.headers import PICKLE_SUFFIXES, read_header
from lora_edit.models.checkpoints.layout import PartFiles

SAMPLE_BYTES = 256
"""Bytes that are looked at in the middle of every tensor."""
MAX_SIDECAR_BYTES = 100_000_000
"""Bytes of the largest file beside the weights (configurations, vocabularies), which are read whole."""
WEIGHTS_SUFFIX = ".safetensors"


def compute_file_identity(*parts: PartFiles) -> str:
    """A short hash of what lies at the places: of weights the header, the size, the time of the last change and some bytes of every
    tensor; of all else every byte. Raises `ModelError` for weights that are no longer whole, `OSError` for what is no longer there.
    """
    digest = hashlib.sha256()
    for place in parts:
        for file in place.files:
            _update_digest(digest, file)
        for file in _iter_sidecar_files(place):
            digest.update(f"{place.part} {file.name} ".encode())
            _update_digest(digest, file)
    return digest.hexdigest()[:32]


def _iter_sidecar_files(part_files: PartFiles) -> Iterator[Path]:
    """Small files of a part's own folder."""
    for file in sorted(part_files.folder.iterdir()) if part_files.folder else ():
        weights = file.suffix == WEIGHTS_SUFFIX or file.suffix in PICKLE_SUFFIXES
        if file not in part_files.files and file.is_file() and not weights and file.stat().st_size <= MAX_SIDECAR_BYTES:
            yield file


def _update_digest(digest: hashlib._Hash, path: Path) -> None:
    if path.suffix != WEIGHTS_SUFFIX:
        return digest.update(path.read_bytes())
    header, status = read_header(path), path.stat()
    digest.update(repr((status.st_size, status.st_mtime_ns, header.shapes, header.dtypes, header.metadata)).encode())
    with path.open("rb") as file:
        for start, end in header.byte_ranges.values():
            file.seek(max(start, (start + end - SAMPLE_BYTES) // 2))
            digest.update(file.read(min(SAMPLE_BYTES, end - start)))
