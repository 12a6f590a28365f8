"""Limits on uploads: files with the signature of a video or an image, up to a maximum size and above a minimum speed.

Each server has its own upload folder. Interrupted uploads are deleted, and the next server deletes the folders of stopped ones.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from lora_edit.file_lock import try_lock
from lora_edit.ui.access import read_headers, send_text

MAX_FILE_BYTES = 4 * 1024**3
"""Maximum size of an upload in bytes."""

MIN_FREE_BYTES = 2 * 1024**3
"""Disk space in bytes that uploads leave free; training and results need it."""

MAX_UPLOADS, MAX_UPLOADS_OF_ADDRESS = 32, 8
"""Maximum number of uploads at once, of all addresses and of one."""

MAX_IDLE_SECONDS, MIN_BYTES_PER_SECOND = 30.0, 4096
"""Longest pause of an upload in seconds, and its minimum speed after that time."""

MAX_HEAD_BYTES = 64 * 1024
"""Length in bytes within which the file of a form has to begin."""

MAX_SHOWN_NAME = 100
"""Maximum length in characters of a file name in a message."""

MAX_UNKNOWN_FILE_BYTES = 32 * 1024**2
"""Maximum size in bytes of a file with an unknown signature; such files are rejected when they are read."""

SIGNATURE_BYTES = 512
"""Length of a file's head in bytes that is compared with the signatures."""

SIGNATURES: tuple[tuple[int, str], ...] = (
    *((4, name) for name in ("66747970", "6d6f6f76", "6d646174", "77696465", "66726565", "736b6970")),  # MP4 and QuickTime
    (0, "1a45dfa3"),  # Matroska and WebM
    (0, "52494646"),  # AVI and WebP
    (0, "4f676753"),  # Ogg
    (0, "464c56"),  # Flash video
    (0, "3026b275"),  # Windows Media
    (0, "000001"),  # MPEG program and video streams, H.264
    (0, "00000001"),  # H.264 and HEVC
    *((offset, "47") for offset in (0, 4)),  # MPEG transport streams
    (0, "1f0700"),  # DV
    (0, "060e2b34"),  # MXF
    (0, "444b4946"),  # IVF
    (0, "1200"),  # AV1
    (0, "595556344d50454732"),  # YUV4MPEG2
    (0, "2e524d46"),  # RealMedia
    (0, "47494638"),  # GIF
    (0, "89504e47"),  # PNG
    (0, "ffd8ff"),  # JPEG
    (0, "49492a00"),  # TIFF
    (0, "4d4d002a"),
    (0, "424d"),  # BMP
    *((0, f"503{digit}") for digit in "56"),  # PGM and PPM
)
"""Signatures of files that can be a clip, an image or a mask: an offset, and the bytes at that offset in hexadecimal."""

NOT_MEDIA_MESSAGE = "{name} is neither a video nor a picture, according to its first bytes; export it as MP4 or PNG"
TOO_LARGE_MESSAGE = "{name} is larger than 4 GB; cut it to a shorter clip"
TOO_SLOW_MESSAGE = "the upload was too slow and was ended; try again on a faster connection"
ONE_FILE_MESSAGE = "an upload is a form with one file and nothing else"
NO_SPACE_MESSAGE = "the computer that runs this page has too little free disk space for the file; delete something there"
FOLDER_PREFIX = "lora-edit-page-"


def is_media(head: bytes) -> bool:
    """Return whether the head of a file has the signature of a video or an image."""
    return any(head[offset:].startswith(bytes.fromhex(digits)) for offset, digits in SIGNATURES)


def create_upload_folder() -> tuple[Path, BaseFileLock | None]:
    """Create a folder for this server's uploads and delete the folders of stopped servers.

    Returns the folder and its lock, which must exist as long as the server runs.
    """
    base = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    base = base.parent if base.name.startswith(FOLDER_PREFIX) else base
    base.mkdir(parents=True, exist_ok=True)
    for other in base.glob(f"{FOLDER_PREFIX}*/.lock"):
        try:
            stale_lock = try_lock(other)
        except OSError:  # owned by another user
            continue
        if stale_lock is not None:
            shutil.rmtree(other.parent, ignore_errors=True)
            stale_lock.release()
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=base))
    lock = try_lock(folder / ".lock")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder, lock


@dataclass
class UploadRejected(Exception):
    """Raised inside an upload that breaks a limit."""

    status: int
    text: str


class UploadMeter:
    """Checks an upload while it arrives: its size, its speed, its first bytes, the free disk space, and that it has one part."""

    def __init__(self, folder: Path, boundary: bytes) -> None:
        self.folder, self.delimiter, self.start_time = folder, b"--" + boundary, time.monotonic()
        self.head, self.tail, self.num_bytes, self.num_delimiters = b"", b"", 0, 0

    async def receive(self, receive: Any) -> Any:
        """Receive the next message. Raises `UploadRejected`."""
        try:
            message = await asyncio.wait_for(receive(), MAX_IDLE_SECONDS)
        except TimeoutError as error:
            raise UploadRejected(408, TOO_SLOW_MESSAGE) from error
        self.add(message.get("body", b""))
        return message

    def add(self, body: bytes) -> None:
        """Count received bytes. Raises `UploadRejected`."""
        self.num_bytes += len(body)
        if not self.is_head_complete:
            self.head += body[: MAX_HEAD_BYTES - len(self.head)]
        searched = self.tail + body
        self.num_delimiters += searched.count(self.delimiter)
        self.tail = searched[-(len(self.delimiter) - 1) :]
        self._check_size()
        if self.num_delimiters > 2:  # one before the file, and one after it
            raise UploadRejected(400, ONE_FILE_MESSAGE)
        seconds = time.monotonic() - self.start_time
        if seconds > MAX_IDLE_SECONDS and self.num_bytes < seconds * MIN_BYTES_PER_SECOND:
            raise UploadRejected(408, TOO_SLOW_MESSAGE)

    @property
    def is_head_complete(self) -> bool:
        """Whether enough of the file has arrived to recognise its signature."""
        return len(self.head) >= MAX_HEAD_BYTES or len(_extract_file_content(self.head)) >= SIGNATURE_BYTES

    def check_head(self, length: int) -> None:
        """Check the form's first part of an upload that declares `length` bytes. Raises `UploadRejected`."""
        if not re.search(rb'\bfilename\*?="?[^"\r\n;]', self.head.partition(b"\r\n\r\n")[0]):
            raise UploadRejected(400, ONE_FILE_MESSAGE)
        if length > MAX_UNKNOWN_FILE_BYTES and not is_media(_extract_file_content(self.head)):
            raise UploadRejected(415, NOT_MEDIA_MESSAGE.format(name=_extract_file_name(self.head)))

    def _check_size(self) -> None:
        if self.num_bytes > MAX_UNKNOWN_FILE_BYTES:
            self.check_head(self.num_bytes)
        if self.num_bytes > MAX_FILE_BYTES:
            raise UploadRejected(413, TOO_LARGE_MESSAGE.format(name=_extract_file_name(self.head)))
        check_free_space(self.folder, 0)


def check_free_space(folder: Path, num_bytes: int) -> None:
    """Raise `UploadRejected` if `num_bytes` more do not fit on the disk of the folder."""
    if shutil.disk_usage(folder).free - num_bytes < MIN_FREE_BYTES:
        raise UploadRejected(507, NO_SPACE_MESSAGE)


class UploadMiddleware:
    """Rejects uploads that are too large, too slow, too many or no media, if possible before their body; deletes interrupted uploads."""

    def __init__(self, app: Any, folder: Path, lock: BaseFileLock | None = None) -> None:
        self.app, self.folder, self.lock = app, folder, lock
        self.active_uploads: Counter[str] = Counter()  # by the address of the sender

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond with 4xx or 5xx and the reason to an upload that breaks a limit."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith("/upload"):
            await self.app(scope, receive, send)
            return
        address, started = (scope.get("client") or ("",))[0], False

        async def send_and_record(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        self.active_uploads[address] += 1
        try:
            self._check_count(address)
            await self._forward_upload(scope, receive, send_and_record)
        except UploadRejected as error:
            if not started:
                await send_text(send, error.status, error.text)
        finally:
            self.active_uploads[address] -= 1
            self.active_uploads += Counter()  # drops addresses without uploads
            self._delete_partial_files()

    def _check_count(self, address: str) -> None:
        if self.active_uploads[address] > MAX_UPLOADS_OF_ADDRESS or self.active_uploads.total() > MAX_UPLOADS:
            raise UploadRejected(503, "too many uploads at once; try again when one has ended")

    async def _forward_upload(self, scope: Any, receive: Any, send: Any) -> None:
        headers = read_headers(scope)
        length = int(declared) if (declared := headers.get("content-length", "0")).isdecimal() else 0
        if length > MAX_FILE_BYTES:
            raise UploadRejected(413, TOO_LARGE_MESSAGE.format(name="the file"))
        check_free_space(self.folder, length)
        boundary = re.search(r'\bboundary="?([^";,]{1,70})(["\s;,]|$)', headers.get("content-type", ""))
        if boundary is None:
            raise UploadRejected(400, ONE_FILE_MESSAGE)
        meter, messages, disconnected = UploadMeter(self.folder, boundary[1].encode("latin-1")), [], False
        while not meter.is_head_complete:
            messages.append(await meter.receive(receive))
            if not messages[-1].get("more_body", False):
                break
        meter.check_head(length)

        async def replay() -> Any:
            nonlocal disconnected
            message = messages.pop(0) if messages else await meter.receive(receive)
            disconnected = disconnected or message["type"] == "http.disconnect"
            return message

        try:
            await self.app(scope, replay, send)
        except UploadRejected:
            raise
        except Exception:
            if not disconnected:
                raise

    def _delete_partial_files(self) -> None:
        """Delete partial files, which still have temporary names, unless an active upload may write to them."""
        for path in self.folder.glob("tmp*"):
            try:
                if path.is_file() and (not self.active_uploads or path.stat().st_mtime < time.time() - 2 * MAX_IDLE_SECONDS):
                    path.unlink()
            except OSError:  # an upload has just renamed it
                continue


def _extract_file_content(form: bytes) -> bytes:
    """Return the received content of the first file of a multipart form."""
    return form.partition(b"\r\n\r\n")[2]


def _extract_file_name(form: bytes) -> str:
    match = re.search(rb'filename="([^"\r\n]*)"', form)
    return match[1].decode("utf-8", "replace")[:MAX_SHOWN_NAME] if match else "the file"
