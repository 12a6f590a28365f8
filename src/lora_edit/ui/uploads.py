"""What may be sent to the page's server: files that begin like a video or a picture, and requests of a sensible size.

Uploads lie in a folder of the server's own. One that is cut off leaves nothing there, and what an ended server left is removed by the next.
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
"""Bytes of an upload."""

MAX_REQUEST_BYTES = 4 * 1024**2
"""Bytes of any other request: what is drawn and typed on the page is far shorter."""

MAX_UNKNOWN_FILE_BYTES = 32 * 1024**2
"""Bytes up to which a file of an unknown kind is read before it is refused."""

SIGNATURE_BYTES = 512
"""First bytes of a file that tell what it is."""

SIGNATURES: tuple[tuple[int, str], ...] = (
    *((4, name) for name in ("66747970", "6d6f6f76", "6d646174", "77696465", "66726565", "736b6970")),  # MP4 and QuickTime
    (0, "1a45dfa3"),  # Matroska and WebM
    (0, "52494646"),  # AVI and WebP
    (0, "4f676753"),  # Ogg
    (0, "464c56"),  # Flash video
    (0, "3026b275"),  # Windows Media
    (0, "000001"),  # MPEG program and video streams, H.264
    (0, "00000001"),  # H.264 and HEVC
    *((place, "47") for place in (0, 4)),  # MPEG transport streams
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
"""How files begin that can be a clip, a picture or a mask: an offset, and the bytes there in hexadecimal."""

NOT_MEDIA_MESSAGE = "{name} is neither a video nor a picture, by its first bytes; export it as MP4 or PNG"
TOO_LARGE_MESSAGE = "{name} is larger than 4 GB; cut a shorter piece out of it"
FOLDER_PREFIX = "lora-edit-page-"


def is_media(head: bytes) -> bool:
    """Does a file that begins so look like a video or a picture?"""
    return any(head[place:].startswith(bytes.fromhex(digits)) for place, digits in SIGNATURES)


def create_upload_folder() -> tuple[Path, IO[str]]:
    """A new folder for this server's uploads, and its lock, which lasts as long as it is kept. Folders of ended servers are removed."""
    base = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    base = base.parent if base.name.startswith(FOLDER_PREFIX) else base
    base.mkdir(parents=True, exist_ok=True)
    for other in base.glob(f"{FOLDER_PREFIX}*/.lock"):
        try:
            with other.open("w") as lock:
                ended = try_lock(lock.fileno())
        except OSError:  # another person's
            continue
        if ended:
            shutil.rmtree(other.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=base))
    lock = (folder / ".lock").open("w")
    try_lock(lock.fileno())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder, lock


class UploadMiddleware:
    """Refuses requests that are too large before their body is read, uploads that are no media by their first bytes, and removes what an
    upload that was cut off has left."""

    def __init__(self, app: Any, folder: Path, lock: IO[str] | None = None) -> None:
        self.app, self.folder, self.lock, self.active_uploads = app, folder, lock, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 413 or 415 instead of such a request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        uploads = scope["path"].endswith("/upload")
        length = _read_content_length(scope)
        if length > (MAX_FILE_BYTES if uploads else MAX_REQUEST_BYTES):
            await _send_error(send, 413, TOO_LARGE_MESSAGE.format(name="the file") if uploads else "this request is too large")
        elif uploads:
            await self._forward_upload(scope, receive, send, length)
        else:
            await self._forward_request(scope, receive, send)

    async def _forward_request(self, scope: Any, receive: Any, send: Any) -> None:
        """A request whose length may not be declared: read up to the limit, and then handed on."""
        body, more = b"", True
        while more and len(body) <= MAX_REQUEST_BYTES:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > MAX_REQUEST_BYTES:
            await _send_error(send, 413, "this request is too large")
            return
        whole: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

        async def heard() -> Any:
            return whole.pop() if whole else await receive()

        await self.app(scope, heard, send)

    async def _forward_upload(self, scope: Any, receive: Any, send: Any, length: int) -> None:
        messages, seen = [], b""
        while len(_extract_file_content(seen)) < SIGNATURE_BYTES:
            messages.append(await receive())
            seen += messages[-1].get("body", b"")
            if not messages[-1].get("more_body", False) or len(seen) > MAX_REQUEST_BYTES:
                break
        if length > MAX_UNKNOWN_FILE_BYTES and not is_media(_extract_file_content(seen)):
            await _send_error(send, 415, NOT_MEDIA_MESSAGE.format(name=_extract_file_name(seen)))
            return
        self.active_uploads += 1
        cut_off = False

        async def heard() -> Any:
            nonlocal cut_off
            message = messages.pop(0) if messages else await receive()
            cut_off = cut_off or message["type"] == "http.disconnect"
            return message

        try:
            await self.app(scope, heard, send)
        except Exception:
            if not cut_off:
                raise
        finally:
            self.active_uploads -= 1
            self._delete_partial_files()

    def _delete_partial_files(self) -> None:
        """Remove parts of files, which have no names yet; none of them is being written while no upload is under way."""
        if not self.active_uploads:
            for part in self.folder.glob("tmp*"):
                if part.is_file():
                    part.unlink(missing_ok=True)


def _read_content_length(scope: Any) -> int:
    declared = dict(scope.get("headers", ())).get(b"content-length", b"0")
    return int(declared) if declared.isdigit() else 0


def _extract_file_content(form: bytes) -> bytes:
    """What has come of the first file of a form."""
    return form.partition(b"\r\n\r\n")[2]


def _extract_file_name(form: bytes) -> str:
    found = re.search(rb'filename="([^"\r\n]*)"', form)
    return found[1].decode("utf-8", "replace") if found else "the file"


async def _send_error(send: Any, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
