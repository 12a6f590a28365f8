"""What the file system says of a path that a person gave; loads no library, so that it is asked before anything heavy is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from lora_edit.errors import VideoError


def stat_path(path: Path) -> os.stat_result:
    """The file's or folder's status. Raises `VideoError` where there is none, or it may not be looked at."""
    try:
        return path.stat()
    except FileNotFoundError as error:
        raise VideoError(f"{path}: no such file or folder; check the path") from error
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror}); allow reading it, or copy it to another place") from error
