"""Atomic files and folders: a name shows the old content or the complete new content, also after a crash or a loss of power.

Content is written under a temporary name beside the target, flushed to the disk, and renamed. A temporary name carries the process that
writes it, so that what a killed process left behind is recognised and removed by `remove_abandoned_files`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from zlib import crc32

import psutil

_PARTIAL_NAME = re.compile(r"\.(?P<target>[0-9a-f]{8})-(?P<host>[0-9a-f]{8})-(?P<process>\d+)-\d+\.partial(\.\w+)?")
_PREVIOUS_NAME = re.compile(r"\.(?P<name>.+)-(?P<host>[0-9a-f]{8})-(?P<process>\d+)\.previous")

_AT_WORKING_FOLDER, _RENAME_EXCHANGE = -100, 2
"""Constants of Linux's `renameat2`."""


@contextmanager
def replace_file(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path beside `path`; what the block writes there becomes `path` when the block ends.

    A link is followed. `suffix` is the end of the temporary name, for libraries that select a format by it. An exception leaves an older
    file as it is and removes the temporary one. The errors of the file system name `path`.
    """
    target = Path(os.path.realpath(path))
    partial = build_partial_path(target, suffix)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _flush(partial)
        os.replace(partial, target)
        _flush_folder(target.parent)
    except OSError as error:
        if error.filename in (None, partial, str(partial)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with replace_file(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically, with line ends as they are in `text`."""
    write_bytes(path, text.encode("utf-8"))


def copy_file(source: Path, path: Path) -> None:
    """Copy the content of a file atomically."""
    with replace_file(path) as partial:
        shutil.copyfile(source, partial)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; with the files that the block writes there, it becomes `path` when the block ends.

    An older folder is exchanged for the new one at once where the system can (Linux), and then removed. Elsewhere it is renamed first, and
    `remove_abandoned_files` restores it after a crash between the two. An exception leaves the older folder as it is.
    """
    target = Path(os.path.realpath(path))
    partial = build_partial_path(target)
    try:
        partial.mkdir(parents=True)
        yield partial
        for file in sorted(partial.rglob("*")):
            if file.is_file():
                _flush(file)
        _flush_folder(partial)
        _put_in_place(partial, target)
        _flush_folder(target.parent)
    except OSError as error:
        if error.filename in (None, partial, str(partial)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def build_partial_path(target: Path, suffix: str = "") -> Path:
    """Build the temporary path beside a target, for this process and thread. It is hidden, and short even if the target's name is long."""
    owner = f"{_hash_name(platform.node())}-{os.getpid()}-{threading.get_native_id()}"
    return target.with_name(f".{_hash_name(target.name)}-{owner}.partial{suffix}")


def is_partial(path: Path) -> bool:
    """Whether a path is a temporary one of this module, or lies in a temporary folder."""
    return any(_PARTIAL_NAME.fullmatch(part) or _PREVIOUS_NAME.fullmatch(part) for part in path.parts)


def remove_abandoned_files(folder: Path, target: Path | None = None) -> list[Path]:
    """Remove the temporary files and folders that ended processes left in `folder`; returns them.

    With `target`, only those of that file or folder; otherwise all, also in subfolders. Names that do not follow this module's pattern, and
    those of running processes and of other hosts, stay. What cannot be removed stays as well.
    """
    removed = []
    for path in _list_hidden(folder, recursive=target is None):
        partial, previous = _PARTIAL_NAME.fullmatch(path.name), _PREVIOUS_NAME.fullmatch(path.name)
        match = partial or previous
        if match is None or match["host"] != _hash_name(platform.node()) or psutil.pid_exists(int(match["process"])):
            continue
        if target is not None and _hash_name(target.name) != (partial["target"] if partial else _hash_name(match["name"])):
            continue
        with suppress(OSError):
            if previous is not None and not (original := path.with_name(previous["name"])).exists():
                os.rename(path, original)
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed.append(path)
    return removed


def _list_hidden(folder: Path, *, recursive: bool) -> list[Path]:
    hidden = []
    for parent, folders, files in os.walk(folder):
        hidden += [Path(parent) / name for name in (*folders, *files) if name.startswith(".")]
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
    return hidden


def _hash_name(name: str) -> str:
    return f"{crc32(os.fsencode(name)):08x}"


def _flush(file: Path) -> None:
    with file.open("r+b") as handle:
        os.fsync(handle.fileno())


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder, where the system can open folders and the file system can flush them."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _put_in_place(partial: Path, target: Path) -> None:
    if not target.is_dir() or not any(target.iterdir()):
        os.replace(partial, target)
    elif not _exchange(partial, target):
        previous = target.with_name(f".{target.name}-{_hash_name(platform.node())}-{os.getpid()}.previous")
        os.rename(target, previous)
        try:
            os.rename(partial, target)
        except OSError:
            os.rename(previous, target)
            raise
        shutil.rmtree(previous, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; returns False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if platform.system() == "Linux" else None
    names = os.fsencode(first), os.fsencode(second)
    return rename is not None and rename(_AT_WORKING_FOLDER, names[0], _AT_WORKING_FOLDER, names[1], _RENAME_EXCHANGE) == 0
