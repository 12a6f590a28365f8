"""Locks between processes, which end with the process that holds them."""

from __future__ import annotations

import errno
import os
import platform
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from lora_edit.atomic_files import write_text

_UNSUPPORTED = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL})
"""Errors of file systems without locks. There, a file with the process's identifier is the lock, and one of an ended process is ignored."""


def try_lock(path: Path) -> BaseFileLock | None:
    """Lock a file for this process until the lock is released or the process ends. Returns None if another process holds the lock.

    Raises `OSError` where the lock's file cannot be written.
    """
    lock: BaseFileLock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        lock = SoftFileLock(path.with_name(f"{path.name}-process"), timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return None
    return lock


def record_owner(path: Path) -> None:
    """Write the identity of this process to a file, for the messages of processes that find the lock held."""
    write_text(path, f"process {os.getpid()} on {platform.node() or 'this machine'}\n")


def read_owner(path: Path) -> str:
    """Read what `record_owner` wrote; "another process" if it cannot be read."""
    try:
        return path.read_text("utf-8").strip() or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"
