"""Signing of results: embedded where the format holds a manifest, else beside the result as `NAME.c2pa`."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeVar

from lora_edit.atomic_files import replace_file, write_bytes
from lora_edit.errors import SigningError, VideoError
from lora_edit.provenance.certificate import Credentials, shorten_reason
from lora_edit.provenance.claim import EditClaim, build_definition, build_ingredients
from lora_edit.provenance.content_hash import list_folder_hashes
from lora_edit.provenance.library import EMBEDDED_TYPES, GENERIC_TYPE, LibraryError, SigningKey, archive_ingredients, sign_stream

SIDECAR_SUFFIX = ".c2pa"
T = TypeVar("T")


def sidecar_path(path: Path) -> Path:
    """Return the path of the sidecar of a file or folder: its whole name with `.c2pa` added, beside it."""
    return path.with_name(path.name + SIDECAR_SUFFIX)


def needs_sidecar(path: Path) -> bool:
    """Whether a result of this name holds no manifest itself."""
    return path.is_dir() or path.suffix.lower() not in EMBEDDED_TYPES


def check_sidecar(path: Path, *, overwrite: bool) -> None:
    """Raise `VideoError` where signing a result would replace a sidecar that is there already, unless it may."""
    sidecar = sidecar_path(path)
    if needs_sidecar(path) and sidecar.exists() and not overwrite:
        raise VideoError(f"{sidecar}: exists already, and the manifest of {path.name} belongs there; remove it or choose another name")


def finish_unsigned(path: Path, target: Path) -> None:
    """Finish a result without signing it (`types.Finish`): the sidecar of an earlier result of this name is removed."""
    if needs_sidecar(target):
        sidecar_path(target).unlink(missing_ok=True)


class ResultSigner:
    """Signs the results of one edit. `notes` are for the user: what the results lack, such as a time stamp that could not be had.

    The claimed files are read when the signer is made. `sign_file` fits `write_video(finish=...)`, and `sign_png` fits
    `save_image(sign=...)`. Raises `SigningError`.
    """

    def __init__(self, claim: EditClaim, credentials: Credentials) -> None:
        self.claim, self.credentials = claim, credentials
        self.notes = list(credentials.notes)
        try:
            self._ingredients = archive_ingredients(build_definition(claim, "", GENERIC_TYPE), build_ingredients(claim.files))
        except LibraryError as error:
            names = ", ".join(each.name for each in claim.files)
            raise SigningError(f"{names}: cannot be named in a manifest ({shorten_reason(error)}); add --no-sign") from error

    def sign_file(self, path: Path, target: Path) -> None:
        """Sign a complete file, or folder of frames, that still has a temporary name; `target` is the name that it gets.

        The manifest is embedded, or is written beside `target`. Raises `SigningError`, which leaves `path` as it was, and `OSError`.
        """
        media_type = None if path.is_dir() else EMBEDDED_TYPES.get(target.suffix.lower())
        if media_type is None:
            data: IO[bytes] = io.BytesIO(list_folder_hashes(path)) if path.is_dir() else path.open("rb")
            with data:
                write_bytes(sidecar_path(target), self._sign(data, None, GENERIC_TYPE, target.name))
            return
        with replace_file(path, path.suffix) as signed, path.open("rb") as source, signed.open("w+b") as output:
            self._sign(source, output, media_type, target.name)

    def sign_png(self, image: bytes, name: str) -> bytes:
        """Return an encoded PNG with a manifest. Raises `SigningError`."""
        output = io.BytesIO()
        self._sign(io.BytesIO(image), output, EMBEDDED_TYPES[".png"], name)
        return output.getvalue()

    def _sign(self, source: IO[bytes], output: IO[bytes] | None, media_type: str, title: str) -> bytes:
        definition = build_definition(self.claim, title, media_type)

        def sign(key: SigningKey) -> bytes:
            source.seek(0)
            if output is not None:
                output.seek(0)
                output.truncate()
            return sign_stream(source, output, media_type, definition, self._ingredients, key)

        try:
            return self._retry_without_time_stamp(sign)
        except LibraryError as error:
            reason = shorten_reason(error)
            raise SigningError(f"{title}: the finished result cannot be signed ({reason}); free disk space, or add --no-sign") from error

    def _retry_without_time_stamp(self, sign: Callable[[SigningKey], T]) -> T:
        """Sign; where the time-stamp authority fails by now, sign without it and add a note. Raises `LibraryError`."""
        key = self.credentials.key
        if key.timestamp_url is None:
            return sign(key)
        try:
            return sign(key)
        except LibraryError as error:
            manifest = sign(replace(key, timestamp_url=None))
            note = f"the manifest has no time stamp: {key.timestamp_url} did not give one ({shorten_reason(error)})"
            if note not in self.notes:
                self.notes.append(note)
            return manifest


def describe_provenance(signer: ResultSigner | None) -> dict[str, Any]:
    """Describe how the results of a run are signed, for the run's own manifest."""
    if signer is None:
        return {"signed": False}
    credentials = signer.credentials
    return {
        "signed": True,
        "signer": credentials.signer,
        "self_signed": credentials.is_self_signed,
        "timestamp_url": credentials.key.timestamp_url,
    }


def build_provenance_rows(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Describe a record of `describe_provenance` for people, as labels and texts; nothing for runs of earlier versions."""
    if not record:
        return []
    if not record["signed"]:
        return [("manifest", "none: signing was switched off (--no-sign)")]
    return [
        ("manifest", "signed C2PA manifest in every result, or beside it as .c2pa; `lora-edit verify` reads it"),
        ("signed by", record["signer"]),
        ("time stamp", record["timestamp_url"] or "none"),
    ]


def summarize_provenance(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Summarize a record of `describe_provenance` in one line; nothing for runs of earlier versions."""
    if not record:
        return ()
    return (f"Signed: {record['signer']}." if record["signed"] else "Not signed: signing was switched off.",)
