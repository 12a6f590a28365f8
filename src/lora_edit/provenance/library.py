"""The C2PA library behind one small interface: signing a stream, reading a manifest. Loads the library at first use; it takes 0.4 s.

Nothing here uses the network, except for a time stamp where an authority is given: remote manifests and the state of certificates are never
asked for.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

EMBEDDED_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".avif": "image/avif",
}
"""Types of the files that hold a manifest themselves, by suffix. Every other file, and a folder, has a sidecar."""

OTHER_TYPES = {".mkv": "video/x-matroska", ".webm": "video/webm", ".gif": "image/gif", ".avi": "video/x-msvideo"}
GENERIC_TYPE = "application/octet-stream"
"""Type of what the library knows no container of: it hashes all bytes."""

SETTINGS: dict[str, Any] = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {
        "thumbnail": {"enabled": False},
        "created_assertion_labels": ["c2pa.actions", "c2pa.ingredient", "c2pa.hash.bmff", "c2pa.hash.data"],
    },
}


class LibraryError(Exception):
    """The library cannot sign or read; the message is the library's."""


@dataclass(frozen=True)
class SigningKey:
    """Certificate chain and private key in PEM, their algorithm in the library's terms, and a time-stamp authority."""

    certificate_chain: bytes
    private_key: bytes
    algorithm: str
    timestamp_url: str | None = None


@dataclass(frozen=True)
class IngredientFile:
    """An ingredient's definition, and the file whose own manifest is kept; without a file, or with a damaged one, the definition alone."""

    definition: dict[str, Any]
    path: Path | None = None


def find_media_type(path: Path) -> str:
    """Return the media type of a file by its suffix; `GENERIC_TYPE` where unknown."""
    return {**EMBEDDED_TYPES, **OTHER_TYPES}.get(path.suffix.lower(), GENERIC_TYPE)


def sign_stream(
    source: IO[bytes],
    target: IO[bytes] | None,
    media_type: str,
    definition: dict[str, Any],
    ingredients: Sequence[IngredientFile | bytes],
    key: SigningKey,
) -> bytes:
    """Sign the bytes of `source` and return the manifest.

    With a `target`, the manifest is embedded in what is written there; without one it is a sidecar's. `ingredients` are files or archives
    of `archive_ingredients`. Raises `LibraryError`, and `OSError` of the streams.
    """
    import c2pa

    try:
        with c2pa.Context.from_dict(SETTINGS) as context, c2pa.Builder(definition, context=context) as builder:
            for ingredient in ingredients:
                _add_ingredient(builder, ingredient)
            info = c2pa.C2paSignerInfo(key.algorithm, key.certificate_chain, key.private_key, key.timestamp_url)
            with c2pa.Signer.from_info(info) as signer:
                if target is not None:
                    return bytes(builder.sign(signer, media_type, source, target))
                builder.set_no_embed()
                with open(os.devnull, "w+b") as unchanged_copy:
                    return bytes(builder.sign(signer, GENERIC_TYPE, source, unchanged_copy))
    except c2pa.C2paError as error:
        raise LibraryError(str(error)) from error


def archive_ingredients(definition: dict[str, Any], ingredients: Sequence[IngredientFile]) -> list[bytes]:
    """Read each ingredient's file once, so that many results can be signed with it. Raises `LibraryError`."""
    import c2pa

    archives = []
    try:
        with c2pa.Context.from_dict(SETTINGS) as context:
            for ingredient in ingredients:
                with c2pa.Builder(definition, context=context) as builder, io.BytesIO() as archive:
                    _add_ingredient(builder, ingredient)
                    builder.write_ingredient_archive(ingredient.definition["label"], archive)
                    archives.append(archive.getvalue())
    except c2pa.C2paError as error:
        raise LibraryError(str(error)) from error
    return archives


def _add_ingredient(builder: Any, ingredient: IngredientFile | bytes) -> None:
    import c2pa

    if isinstance(ingredient, bytes):
        with io.BytesIO(ingredient) as archive:
            return builder.add_ingredient_from_archive(archive)
    if ingredient.path is not None and ingredient.path.is_file():
        try:
            with ingredient.path.open("rb") as file:
                return builder.add_ingredient(ingredient.definition, find_media_type(ingredient.path), file)
        except (c2pa.C2paError, OSError):
            pass  # a file that FFmpeg reads, but not this library: its hash still identifies it
    with io.BytesIO(b"") as nothing:
        return builder.add_ingredient(ingredient.definition, GENERIC_TYPE, nothing)


@dataclass(frozen=True)
class ReadManifest:
    """What the library says of a file: its manifest store, and the same with the certificates of the signers (crJSON)."""

    store: dict[str, Any]
    details: dict[str, Any]

    @property
    def state(self) -> str:
        """`Invalid`, `Valid`, or `Trusted` for a signer on the list of trusted certificates."""
        return str(self.store.get("validation_state", "Invalid"))

    @property
    def active(self) -> dict[str, Any]:
        """The manifest of the file itself; the others belong to its ingredients."""
        return dict(self.store.get("manifests", {}).get(self.store.get("active_manifest"), {}))


def read_manifest(
    source: IO[bytes], media_type: str, sidecar: bytes | None = None, trusted_certificates: str | None = None
) -> ReadManifest | None:
    """Read and check the manifest of a stream, or of a `sidecar` for it; None without any. Raises `LibraryError` for a damaged one."""
    import c2pa

    settings = SETTINGS if trusted_certificates is None else {**SETTINGS, "trust": {"user_anchors": trusted_certificates}}
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(GENERIC_TYPE if sidecar else media_type, source, sidecar, context=context) as reader,
        ):
            return ReadManifest(json.loads(reader.json()), json.loads(reader.crjson()))
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        raise LibraryError(str(error)) from error
