"""Limits on requests to the page's server: files with the signature of a video or an image, and requests up to a maximum size.

Each server has its own upload folder. Interrupted uploads are deleted, and the next server deletes the folders of stopped ones.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

from lora_edit.run import try_lock

MAX_FILE_BYTES = 4 * 1024**3
"""Maximum size of an upload in bytes."""

MAX_REQUEST_BYTES = 4 * 1024**2
"""Maximum size of any other request in bytes; marks and typed text are far shorter."""

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
FOLDER_PREFIX = "lora-edit-page-"


def is_media(head: bytes) -> bool:
    """Return whether the head of a file has the signature of a video or an image."""
    return any(head[offset:].startswith(bytes.fromhex(digits)) for offset, digits in SIGNATURES)


def create_upload_folder() -> tuple[Path, IO[str]]:
    """Create a folder for this server's uploads and delete the folders of stopped servers.

    Returns the folder and its lock file, which must stay open as long as the server runs.
    """
    base = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    base = base.parent if base.name.startswith(FOLDER_PREFIX) else base
    base.mkdir(parents=True, exist_ok=True)
    for other in base.glob(f"{FOLDER_PREFIX}*/.lock"):
        try:
            with other.open("w") as lock:
                is_stale = try_lock(lock.fileno())
        except OSError:  # owned by another user
            continue
        if is_stale:
            shutil.rmtree(other.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=base))
    lock = (folder / ".lock").open("w")
    try_lock(lock.fileno())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder, lock


class UploadMiddleware:
    """Rejects requests that are too large before reading their body, and uploads without a media signature; deletes interrupted uploads."""

    def __init__(self, app: Any, folder: Path, lock: IO[str] | None = None) -> None:
        self.app, self.folder, self.lock, self.active_uploads = app, folder, lock, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond with 413 to a request that is too large, and with 415 to an upload that is not media."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        is_upload = scope["path"].endswith("/upload")
        length = _read_content_length(scope)
        if length > (MAX_FILE_BYTES if is_upload else MAX_REQUEST_BYTES):
            await _send_error(send, 413, TOO_LARGE_MESSAGE.format(name="the file") if is_upload else "this request is too large")
        elif is_upload:
            await self._forward_upload(scope, receive, send, length)
        else:
            await self._forward_request(scope, receive, send)

    async def _forward_request(self, scope: Any, receive: Any, send: Any) -> None:
        """Read a request, whose length may not be declared, up to the limit and forward it."""
        body, more = b"", True
        while more and len(body) <= MAX_REQUEST_BYTES:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > MAX_REQUEST_BYTES:
            await _send_error(send, 413, "this request is too large")
            return
        pending: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Any:
            return pending.pop() if pending else await receive()

        await self.app(scope, replay, send)

    async def _forward_upload(self, scope: Any, receive: Any, send: Any, length: int) -> None:
        messages, head = [], b""
        while len(_extract_file_content(head)) < SIGNATURE_BYTES:
            messages.append(await receive())
            head += messages[-1].get("body", b"")
            if not messages[-1].get("more_body", False) or len(head) > MAX_REQUEST_BYTES:
                break
        if length > MAX_UNKNOWN_FILE_BYTES and not is_media(_extract_file_content(head)):
            await _send_error(send, 415, NOT_MEDIA_MESSAGE.format(name=_extract_file_name(head)))
            return
        self.active_uploads += 1
        disconnected = False

        async def replay() -> Any:
            nonlocal disconnected
            message = messages.pop(0) if messages else await receive()
            disconnected = disconnected or message["type"] == "http.disconnect"
            return message

        try:
            await self.app(scope, replay, send)
        except Exception:
            if not disconnected:
                raise
        finally:
            self.active_uploads -= 1
            self._delete_partial_files()

    def _delete_partial_files(self) -> None:
        """Delete partial files, which still have temporary names, unless an upload is active."""
        if not self.active_uploads:
            for path in self.folder.glob("tmp*"):
                if path.is_file():
                    path.unlink(missing_ok=True)


def _read_content_length(scope: Any) -> int:
    length = dict(scope.get("headers", ())).get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0


def _extract_file_content(form: bytes) -> bytes:
    """Return the received content of the first file of a multipart form."""
    return form.partition(b"\r\n\r\n")[2]


def _extract_file_name(form: bytes) -> str:
    match = re.search(rb'filename="([^"\r\n]*)"', form)
    return match[1].decode("utf-8", "replace") if match else "the file"


async def _send_error(send: Any, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
