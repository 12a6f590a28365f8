"""Tests of image loading: stills, folders and animations are upright, in sRGB and rounded to 8 bits."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from lora_edit.video.images import require_file
from lora_edit.video.read import read_image, read_video

RED = (200, 60, 50)


def make_profile(name: str) -> bytes:
    """Make a matrix profile from sRGB's; "swapped" exchanges the red and green primaries."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    tags = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    if name == "swapped":
        red, green = tags[b"rXYZ"], tags[b"gXYZ"]
        data[red + 4 : red + 12], data[green + 4 : green + 12] = data[green + 4 : green + 12], data[red + 4 : red + 12]
    return bytes(data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_profiles_are_converted(tmp_path: Path, mode: str) -> None:
    """With the red and green primaries exchanged, red levels become green."""
    image = Image.new("RGB", (6, 4), RED).convert(mode)
    image.save(tmp_path / "a.png", icc_profile=make_profile("swapped"))
    converted = read_image(tmp_path / "a.png")[0, 0].tolist()
    assert abs(converted[1] - RED[0]) <= 2 and abs(converted[0] - RED[1]) <= 2
    (tmp_path / "folder").mkdir()
    image.save(tmp_path / "folder" / "1.png", icc_profile=make_profile("swapped"))
    assert read_video(tmp_path / "folder").frames[0, 0, 0].tolist() == converted
    assert read_video(tmp_path / "a.png").frames[0, 0, 0].tolist() == converted


@pytest.mark.parametrize("embedded", [make_profile("sRGB"), b"no profile at all"])
def test_srgb_and_invalid_profiles_change_nothing(tmp_path: Path, embedded: bytes) -> None:
    """All sRGB levels stay unchanged, and an invalid profile counts as none."""
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    Image.fromarray(levels).save(tmp_path / "a.png", icc_profile=embedded)
    assert np.array_equal(read_image(tmp_path / "a.png").numpy(), levels)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_are_rounded(tmp_path: Path, ending: str) -> None:
    levels = np.full((4, 6, 3), 100 * 257 + 200, np.uint16)
    cv2.imwrite(str(tmp_path / f"a{ending}"), levels)
    assert read_image(tmp_path / f"a{ending}").unique().tolist() == [101]
    assert read_video(tmp_path / f"a{ending}").frames.unique().tolist() == [101]


def test_tiff_pages_are_frames_but_thumbnails_are_not(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 6), level) for level in (0, 100, 200)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert read_video(tmp_path / "pages.tif").frames[:, 0, 0, 0].tolist() == [0, 100, 200]
    pages[0].save(tmp_path / "thumbnail.tif", save_all=True, append_images=[pages[1].resize((4, 3))])
    assert read_video(tmp_path / "thumbnail.tif").num_frames == 1


def test_folder_named_like_an_image_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "0.png").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    assert read_video(tmp_path).num_frames == 1


def test_require_file_accepts_folders(tmp_path: Path) -> None:
    require_file(tmp_path)


def test_notes_report_numbering_faults_of_a_folder(tmp_path: Path) -> None:
    for name in ("000.png", "001.png", "003.png", "003.bmp"):
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    notes = read_video(tmp_path).notes
    assert "such as number 2" in notes[0] and "such as 3" in notes[1]
    (tmp_path / "003.bmp").unlink()
    Image.new("RGB", (8, 6)).save(tmp_path / "002.png")
    assert read_video(tmp_path).notes == ()
