"""Identity of an encoder's files, without reading them whole: part of the key of its cached outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from lora_edit.models.checkpoints.headers import PICKLE_SUFFIXES, read_header
from lora_edit.models.checkpoints.layout import PartFiles

SAMPLE_BYTES = 256
"""Bytes that are hashed in the middle of every tensor."""
MAX_SIDECAR_BYTES = 100_000_000
"""Size limit of files beside the weights (configurations, vocabularies), which are hashed whole."""
WEIGHTS_SUFFIX = ".safetensors"


def compute_file_identity(*parts: PartFiles) -> str:
    """Hash the files of parts: of weights the header, the size, the time of the last change and some bytes of every tensor; of others all.

    Raises `ModelError` for weights that are no longer whole, `OSError` for files that no longer exist.
    """
    digest = hashlib.sha256()
    for part_files in parts:
        for file in part_files.files:
            _update_digest(digest, file)
        for file in _iter_sidecar_files(part_files):
            digest.update(f"{part_files.part} {file.name} ".encode())
            _update_digest(digest, file)
    return digest.hexdigest()[:32]


def _iter_sidecar_files(part_files: PartFiles) -> Iterator[Path]:
    """Yield the small files of a part's own folder."""
    for file in sorted(part_files.folder.iterdir()) if part_files.folder else ():
        is_weights = file.suffix == WEIGHTS_SUFFIX or file.suffix in PICKLE_SUFFIXES
        if file not in part_files.files and file.is_file() and not is_weights and file.stat().st_size <= MAX_SIDECAR_BYTES:
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
