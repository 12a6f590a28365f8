"""The Hub library's folder on this machine: its location, and the files of a repository in it. Nothing here uses the network.

Settings are those of `huggingface_hub.constants`, which reads its environment variables once, when it is imported.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants


def get_hub_cache_folder() -> Path:
    """Return the folder in which the Hub's library keeps downloads."""
    return Path(constants.HF_HUB_CACHE).expanduser()


def get_repository_folder(repo: str) -> Path:
    """Return the folder of one repository's downloads."""
    return get_hub_cache_folder() / f"models--{repo.replace('/', '--')}"


def is_repository(source: str) -> bool:
    """Check whether a text has the form `org/name` and is no local file or folder."""
    return source.count("/") == 1 and not Path(source).exists() and not Path(source).is_absolute()


def list_snapshots(repo: str) -> list[Path]:
    """List the downloaded versions of a repository, whole or not: the last `main` first, then the newest.

    A file appears in a version only when it is whole.
    """
    if not is_repository(repo):
        return []
    folder = get_repository_folder(repo)
    try:
        main = (folder / "refs" / "main").read_text("utf-8").strip()
    except OSError:
        main = ""
    snapshots = [each for each in (folder / "snapshots").glob("*") if each.is_dir()]
    return sorted(snapshots, key=lambda each: (each.name != main, -each.stat().st_mtime))


def find_snapshot_folder(repo: str) -> Path | None:
    """Find the downloaded version of a repository that holds a transformer's configuration; None without one."""
    return next((folder for folder in list_snapshots(repo) if (folder / "transformer" / "config.json").is_file()), None)


def count_downloaded_bytes(repo: str) -> int:
    """Count the bytes of a repository on this machine, including unfinished files."""
    blobs = get_repository_folder(repo) / "blobs"
    return sum(blob.stat().st_size for blob in blobs.glob("*") if blob.is_file())


def is_offline() -> bool:
    """Check whether `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE` keeps the Hub's library off the network."""
    return constants.is_offline_mode()
