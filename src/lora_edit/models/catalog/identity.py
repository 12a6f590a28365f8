"""What tells an encoder's files apart from all others, without reading them whole: part of the key of what the encoder said."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from lora_edit.models.catalog.headers import PICKLE_ENDINGS, read_header
from lora_edit.models.catalog.places import Place

SAMPLE = 256
"""Bytes that are looked at in the middle of every tensor."""
SMALL = 100_000_000
"""Bytes of the largest file beside the weights (configurations, vocabularies), which are read whole."""
WEIGHTS = ".safetensors"


def identity(*places: Place) -> str:
    """A short hash of what lies at the places: of weights the header, the size, the time of the last change and some bytes of every
    tensor; of all else every byte. Raises `ModelError` for weights that are no longer whole, `OSError` for what is no longer there.
    """
    digest = hashlib.sha256()
    for place in places:
        for file in place.files:
            _add(digest, file)
        for file in _beside(place):
            digest.update(f"{place.part} {file.name} ".encode())
            _add(digest, file)
    return digest.hexdigest()[:32]


def _beside(place: Place) -> Iterator[Path]:
    """Small files of a part's own folder."""
    for file in sorted(place.folder.iterdir()) if place.folder else ():
        weights = file.suffix == WEIGHTS or file.suffix in PICKLE_ENDINGS
        if file not in place.files and file.is_file() and not weights and file.stat().st_size <= SMALL:
            yield file


def _add(digest: hashlib._Hash, path: Path) -> None:
    if path.suffix != WEIGHTS:
        return digest.update(path.read_bytes())
    header, facts = read_header(path), path.stat()
    digest.update(repr((facts.st_size, facts.st_mtime_ns, header.shapes, header.dtypes, header.metadata)).encode())
    with path.open("rb") as file:
        for start, end in header.spans.values():
            file.seek(max(start, (start + end - SAMPLE) // 2))
            digest.update(file.read(min(SAMPLE, end - start)))
