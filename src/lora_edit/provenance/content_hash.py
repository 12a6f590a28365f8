"""Hashes of files, and of folders of frames by a listing that `sha256sum` writes as well."""

from __future__ import annotations

import hashlib
from pathlib import Path


def hash_file(path: Path) -> str:
    """Compute the SHA-256 of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_text(text: str) -> str:
    """Compute the SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def list_folder_hashes(folder: Path) -> bytes:
    """List the files of a folder by name, each with its SHA-256: the output of `sha256sum *` inside it. Hidden files are left out."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return "".join(f"{hash_file(path)}  {path.name}\n" for path in files).encode("utf-8", "surrogateescape")


def hash_source(path: Path) -> str:
    """Compute the SHA-256 of a file, or of the listing of a folder."""
    return hashlib.sha256(list_folder_hashes(path)).hexdigest() if path.is_dir() else hash_file(path)
