"""Pictures and clips that are small on disk and absurd once opened are refused from their headers; damaged ones by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lora_edit.errors import VideoError
from lora_edit.limits import MAX_ANIMATION_FRAMES, MAX_PIXELS
from lora_edit.video import images, read
from lora_edit.video.decode import get_frame_rate
from lora_edit.video.images import list_images, load_image_array
from lora_edit.video.png_frames import load_frames
from lora_edit.video.read import probe_video, read_video
from lora_edit.video.settings import VideoSettings
from video.sources import pictures, write_source


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with correct checksums, and whatever content."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    parts = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in (header, *chunks, (b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def replace_bytes(path: Path, token: bytes, offset: int, value: bytes) -> Path:
    data = bytearray(path.read_bytes())
    start = data.index(token) + offset
    data[start : start + len(value)] = value
    path.write_bytes(data)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_source(tmp_path / "clip.mp4", pictures(4, 32, 48), options={"bf": "0"})


@pytest.mark.parametrize("size", [(60_000, 60_000), (13_000, 13_000), (2**31 - 1, 1)])
def test_absurd_pictures_are_refused_from_the_header(tmp_path: Path, size: tuple[int, int]) -> None:
    """Both roads to a picture: as a still and as a clip."""
    path = tmp_path / "a.png"
    path.write_bytes(png(*size, (b"IDAT", zlib.compress(b"\0" * 100))))
    for road in (load_image_array, read_video, probe_video):
        with pytest.raises(VideoError, match=rf"a\.png: .*{MAX_PIXELS:,} pixels; scale it down"):
            road(path)


def test_large_photographs_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The limit lets 16K through."""
    assert MAX_PIXELS > 15360 * 8640
    monkeypatch.setattr(images, "MAX_PIXELS", 48 * 32)
    Image.new("RGB", (48, 32)).save(tmp_path / "a.png")
    assert load_image_array(tmp_path / "a.png").shape == (32, 48, 3)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_compressed_texts_are_not_inflated(tmp_path: Path, kind: bytes) -> None:
    """A profile or text of 80 MB in 80 kB; Pillow inflates a part of it, or refuses the file."""
    packer = zlib.compressobj(9)
    bomb = b"a\0\0" + b"".join(packer.compress(b"\0" * 2**20) for _ in range(80)) + packer.flush()
    (tmp_path / "a.png").write_bytes(png(2, 1, (kind, bomb), (b"IDAT", zlib.compress(b"\0" * 7))))
    try:
        assert load_image_array(tmp_path / "a.png").shape == (1, 2, 3)
    except VideoError as error:
        assert "a.png" in str(error)  # noqa: PT017


def test_animations_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the stated number of frames before any is decoded, and by those that are read."""
    frame = struct.pack(">IIIIIHHBB", 0, 4, 4, 0, 0, 1, 25, 0, 0)
    stated = png(4, 4, (b"acTL", struct.pack(">II", 2**31 - 1, 0)), (b"fcTL", frame), (b"IDAT", zlib.compress(b"\0" * 52)))
    (tmp_path / "a.png").write_bytes(stated)
    with pytest.raises(VideoError, match=rf"a\.png: an animation of 4x4 has at most {MAX_ANIMATION_FRAMES:,} frames"):
        read_video(tmp_path / "a.png")
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in range(0, 250, 50)]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    monkeypatch.setattr(images, "MAX_ANIMATION_PIXELS", 4 * 64)
    with pytest.raises(VideoError, match=r"b\.gif: an animation of 8x8 has at most 4 frames"):
        read_video(tmp_path / "b.gif")


def test_exceptions_of_decoders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's decoders raise errors of many types for damaged files, such as RuntimeError for AVIF."""
    Image.fromarray(pictures(1, 32, 48)[0]).save(tmp_path / "a.avif")
    data = (tmp_path / "a.avif").read_bytes()
    (tmp_path / "a.avif").write_bytes(data[: data.index(b"mdat") + 8] + b"\xff" * (len(data) - data.index(b"mdat") - 8))
    for road in (load_image_array, read_video):
        with pytest.raises(VideoError, match=r"a\.avif"):
            road(tmp_path / "a.avif")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    for error in (RuntimeError("x"), MemoryError(), struct.error("x"), KeyError("x"), ZeroDivisionError(), cv2.error("x"), OverflowError()):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(images, "to_srgb", fail)
        with pytest.raises(VideoError, match=r"b\.png: damaged"):
            load_image_array(tmp_path / "b.png")


def test_a_stated_number_of_frames_is_not_trusted(clip: Path) -> None:
    """A table of two billion samples in a file of four: memory is not reserved for them."""
    replace_bytes(clip, b"stsz", 8, struct.pack(">II", 20, 2**31 - 1))
    replace_bytes(clip, b"stts", 12, struct.pack(">I", 2**31 - 1))
    with pytest.raises(VideoError, match=r"clip\.mp4"):
        read_video(clip)


def test_clips_above_the_free_memory_are_refused(clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before the second frame where the file states its length, else as soon as the frames no longer fit."""
    monkeypatch.setattr(read, "get_free_host_bytes", lambda: 3 * 48 * 32 * 3)
    with pytest.raises(VideoError, match=r"clip\.mp4: 4 frames of 48x32 need 0 MB of memory, .* give --frames"):
        read_video(clip)
    assert read_video(clip, VideoSettings(frames=3)).num_frames == 3
    monkeypatch.setattr(read, "_UNSTATED_FRAMES", 1)
    unstated = write_source(tmp_path / "a.mkv", pictures(4, 32, 48), codec="ffv1", pix_fmt="bgr0")
    monkeypatch.setattr(read, "get_free_host_bytes", lambda: 2 * 48 * 32 * 3)
    with pytest.raises(VideoError, match=r"a\.mkv: 3 frames"):
        read_video(unstated)


@pytest.mark.parametrize("road", [read_video, probe_video])
def test_frames_above_the_limit_are_refused(clip: Path, monkeypatch: pytest.MonkeyPatch, road: object) -> None:
    """From the header; and while decoding, where the stream itself states another size."""
    from lora_edit.video import decode, libav

    monkeypatch.setattr(decode, "MAX_PIXELS", 100)
    with pytest.raises(VideoError, match=r"clip\.mp4: states frames of 48x32, above 100 pixels"):
        road(clip)  # type: ignore[operator]
    monkeypatch.setattr(decode, "MAX_PIXELS", 10**9)
    monkeypatch.setattr(libav, "MAX_PIXELS", 100)
    with pytest.raises(VideoError, match=r"clip\.mp4"):
        road(clip)  # type: ignore[operator]


def test_implausible_rates_count_as_none(tmp_path: Path) -> None:
    """A billion frames per second."""

    class Stream:
        average_rate, guessed_rate, base_rate = 10**9, 0, None

    assert get_frame_rate(Stream()) == 25  # type: ignore[arg-type]


def test_damaged_streams_are_named_by_both_readers(tmp_path: Path) -> None:
    clip = write_source(tmp_path / "a.mov", pictures(2, 32, 48), codec="prores_ks", pix_fmt="yuv422p10le")
    replace_bytes(clip, b"icpf", 0, b"\0" * 200)
    for road in (read_video, probe_video):
        with pytest.raises(VideoError, match=r"a\.mov"):
            road(clip)


def test_names_with_other_digits_sort(tmp_path: Path) -> None:
    """Superscripts are digits that are no numbers."""
    for name in ("1\u00b22.png", "\u00b2.png", "10.png", "\u0662.png", "2.png"):
        (tmp_path / name).write_bytes(b"x")
    assert len(list_images(tmp_path)) == 5


def test_crowded_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_IMAGES", 2)
    for index in range(3):
        (tmp_path / f"{index}.png").touch()
    with pytest.raises(VideoError, match="holds more than 2 files"):
        list_images(tmp_path)


def test_stored_frames_may_be_anything(tmp_path: Path) -> None:
    """A run folder's frame that is a device, a folder, or of an absurd size."""
    file = tmp_path / "00000.png"
    for spoil in (
        lambda: file.symlink_to("/dev/zero"),
        lambda: file.write_bytes(png(2**20, 2**20, (b"IDAT", b""))),
        lambda: file.write_bytes(cv2.imencode(".png", np.zeros((2, 2), np.uint8))[1].tobytes()[:30]),
    ):
        spoil()
        with pytest.raises(VideoError, match=r"00000\.png"):
            load_frames(tmp_path)
        file.unlink()


def test_unknown_codecs_are_named(clip: Path) -> None:
    clip.write_bytes(clip.read_bytes().replace(b"avc1", b"zzz9"))
    for road in (read_video, probe_video):
        with pytest.raises(VideoError, match=r"clip\.mp4: there is no decoder for this kind of video"):
            road(clip)
