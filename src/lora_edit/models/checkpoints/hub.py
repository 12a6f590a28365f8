"""The Hub library's folder on this machine: where it is, and what of a repository lies there. Nothing here touches the network."""

from __future__ import annotations

import os
from pathlib import Path


def get_hub_cache_folder() -> Path:
    """Where the Hub's library keeps downloads, by the environment variables that it reads itself."""
    general = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    home = os.environ.get("HF_HOME") or str(Path(general) / "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or str(Path(home) / "hub")
    return Path(os.path.expandvars(cache)).expanduser()


def get_repository_folder(repo: str) -> Path:
    """Where everything of one repository goes."""
    return get_hub_cache_folder() / f"models--{repo.replace('/', '--')}"


def is_repository(source: str) -> bool:
    """Does the text look like `org/name`, and is no file or folder here called so?"""
    return source.count("/") == 1 and not Path(source).exists() and not Path(source).is_absolute()


def list_snapshots(repo: str) -> list[Path]:
    """The downloaded versions of a repository, whole or not: the one that `main` was last, then the newest. A file appears in one of
    them only when it is whole."""
    if not is_repository(repo):
        return []
    folder = get_repository_folder(repo)
    try:
        main = (folder / "refs" / "main").read_text("utf-8").strip()
    except OSError:
        main = ""
    found = [each for each in (folder / "snapshots").glob("*") if each.is_dir()]
    return sorted(found, key=lambda each: (each.name != main, -each.stat().st_mtime))


def find_snapshot_folder(repo: str) -> Path | None:
    """The downloaded version of a repository that holds a transformer's configuration; None when there is none."""
    return next((folder for folder in list_snapshots(repo) if (folder / "transformer" / "config.json").is_file()), None)


def count_downloaded_bytes(repo: str) -> int:
    """How much of a repository is here, parts of files included."""
    blobs = get_repository_folder(repo) / "blobs"
    return sum(blob.stat().st_size for blob in blobs.glob("*") if blob.is_file())


def is_offline() -> bool:
    """Has the person told the Hub's library to stay off the network?"""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
