"""Reading and writing of mask files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lora_edit.errors import MaskError
from lora_edit.masks.files import load_mask, read_mask, save_mask
from lora_edit.types import EditMask, Size, Video
from lora_edit.video.write import write_video

SIZE = Size(24, 32)


def make_moving_square(num_frames: int) -> torch.Tensor:
    """Return bool frames with an 8 x 8 square that moves by one pixel per frame."""
    frames = torch.zeros(num_frames, SIZE.height, SIZE.width, dtype=torch.bool)
    for index, frame in enumerate(frames):
        frame[8:16, index : index + 8] = True
    return frames


def write_folder(folder: Path, frames: torch.Tensor) -> Path:
    folder.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame.numpy()).save(folder / f"{index}.png")
    return folder


def test_folder_is_read_in_frame_order(tmp_path: Path) -> None:
    frames = make_moving_square(12)
    assert torch.equal(read_mask(write_folder(tmp_path / "m", frames), 12, SIZE).frames, frames)


def test_mask_of_the_whole_source_is_cut_to_the_range(tmp_path: Path) -> None:
    frames = make_moving_square(12)
    assert torch.equal(read_mask(write_folder(tmp_path / "m", frames), 5, SIZE, start=4).frames, frames[4:9])


def test_still_image_applies_to_all_frames(tmp_path: Path) -> None:
    Image.fromarray(make_moving_square(1)[0].numpy()).save(tmp_path / "still.png")
    mask = read_mask(tmp_path / "still.png", 4, SIZE)
    assert torch.equal(mask.frames, make_moving_square(1).expand(4, -1, -1))
    assert mask.notes == ()


def test_video_mask_is_thresholded_at_half_brightness(tmp_path: Path) -> None:
    frames = make_moving_square(6)
    grey = (frames * 255).to(torch.uint8)[..., None].expand(-1, -1, -1, 3).contiguous()
    write_video(tmp_path / "mask.mp4", Video(grey, Fraction(8), tuple(i / 8 for i in range(6))))
    assert (read_mask(tmp_path / "mask.mp4", 6, SIZE).frames != frames).float().mean() < 0.01


def test_grey_mask_is_reported(tmp_path: Path) -> None:
    picture = np.full((24, 32), 127, np.uint8)
    picture[:4] = 255
    Image.fromarray(picture).save(tmp_path / "grey.png")
    mask = read_mask(tmp_path / "grey.png", 1, SIZE)
    assert int(mask.frames.sum()) == 4 * 32
    assert "83% of the mask's pixels are grey" in mask.notes[0]


@pytest.mark.parametrize(
    ("frames", "num_frames", "size", "message"),
    [
        (make_moving_square(3), 5, SIZE, "has 3 frames but the clip has 5"),
        (make_moving_square(3), 3, Size(24, 40), "is 32x24 but the source is 40x24"),
        (make_moving_square(3) & False, 3, SIZE, "no white pixel"),
    ],
)
def test_mask_that_does_not_fit_raises(tmp_path: Path, frames: torch.Tensor, num_frames: int, size: Size, message: str) -> None:
    with pytest.raises(MaskError, match=message):
        read_mask(write_folder(tmp_path / "m", frames), num_frames, size)


def test_missing_mask_raises(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match="no such mask"):
        read_mask(tmp_path / "none", 1, SIZE)


def test_whole_frame_and_empty_frames_are_reported(tmp_path: Path) -> None:
    full = read_mask(write_folder(tmp_path / "full", torch.ones_like(make_moving_square(2))), 2, SIZE)
    assert full.notes == ("whole-frame edit: nothing but the first frame is preserved",)
    frames = make_moving_square(9)
    frames[[2, 3, 5, 8]] = False
    lost = read_mask(write_folder(tmp_path / "lost", frames), 9, SIZE)
    assert torch.equal(lost.frames, frames)
    assert "frames 2-3, 5;" in lost.notes[0]
    assert "frames 8;" in lost.notes[1]


def test_save_and_load_round_trip_replaces_a_longer_mask(tmp_path: Path) -> None:
    save_mask(tmp_path / "m", EditMask(make_moving_square(7)))
    save_mask(tmp_path / "m", EditMask(make_moving_square(4)))
    assert torch.equal(load_mask(tmp_path / "m").frames, make_moving_square(4))


def test_damaged_mask_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match="no complete mask"):
        load_mask(tmp_path)
    save_mask(tmp_path, EditMask(make_moving_square(3)))
    (tmp_path / "00001.png").unlink()
    with pytest.raises(MaskError, match="no complete mask"):
        load_mask(tmp_path)
    (tmp_path / "00001.png").write_bytes(b"torn")
    with pytest.raises(MaskError, match="cannot be read"):
        load_mask(tmp_path)


def make_rectangle() -> np.ndarray:
    inside = np.zeros((SIZE.height, SIZE.width), bool)
    inside[6:18, 8:20] = True
    return inside


def make_transparent_image(kind: str) -> Image.Image:
    """Return the rectangle as other programs write it: white, or the object itself, or a grey picture, on a transparent background.
    Hidden pixels are white."""
    inside = make_rectangle()
    colours = np.full((SIZE.height, SIZE.width, 3), 255, np.uint8)
    if kind == "cut-out":
        colours[inside] = (120, 40, 30)
    if kind == "drawn":
        colours[~inside] = 0
    alpha = np.full(inside.shape, 255, np.uint8) if kind == "drawn" else inside.astype(np.uint8) * 255
    if kind == "drawn":
        alpha[:2] = 0  # an empty corner changes nothing
    return Image.fromarray(np.dstack([colours, alpha])).convert("LA" if kind == "grey" else "RGBA")


@pytest.mark.parametrize("ending", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("kind", ["white", "grey", "cut-out", "drawn"])
def test_transparent_mask(tmp_path: Path, kind: str, ending: str) -> None:
    options = {"lossless": True, "exact": True} if ending == ".webp" else {}
    image = make_transparent_image(kind).convert("RGBA") if ending == ".webp" else make_transparent_image(kind)
    image.save(tmp_path / f"m{ending}", **options)
    mask = read_mask(tmp_path / f"m{ending}", 3, SIZE)
    assert torch.equal(mask.frames, torch.from_numpy(make_rectangle()).expand(3, -1, -1))
    assert any("opaque" in note for note in mask.notes) == (kind == "cut-out")
    (tmp_path / "folder").mkdir()
    for number in range(2):
        image.save(tmp_path / "folder" / f"{number}{ending}", **options)
    assert torch.equal(read_mask(tmp_path / "folder", 2, SIZE).frames, mask.frames[:2])


def test_mask_longer_than_the_whole_clip_raises(tmp_path: Path) -> None:
    """A mask at another frame rate, or with an extra frame, matches no frame but the first."""
    folder = write_folder(tmp_path / "m", make_moving_square(12))
    with pytest.raises(MaskError, match="has 12 frames but the clip has 6"):
        read_mask(folder, 6, SIZE, source_frames=6)
    assert any("the source 9" in note for note in read_mask(folder, 6, SIZE, start=2, source_frames=9).notes)
    assert read_mask(folder, 6, SIZE, start=2, source_frames=12).notes == ()


def test_label_image_raises(tmp_path: Path) -> None:
    labels = Image.fromarray(make_rectangle().astype(np.uint8))
    labels.save(tmp_path / "labels.png")
    with pytest.raises(MaskError, match="brightest pixel is 1 of 255"):
        read_mask(tmp_path / "labels.png", 1, SIZE)
    palette = labels.copy()
    palette.putpalette([0, 0, 0, 128, 0, 0])
    palette.save(tmp_path / "palette.png")
    with pytest.raises(MaskError, match="brightest pixel is 38 of 255"):
        read_mask(tmp_path / "palette.png", 1, SIZE)


def test_pages_of_a_tiff_are_frames(tmp_path: Path) -> None:
    pages = [Image.fromarray(frame.numpy()) for frame in make_moving_square(4)]
    pages[0].save(tmp_path / "m.tif", save_all=True, append_images=pages[1:])
    assert torch.equal(read_mask(tmp_path / "m.tif", 4, SIZE).frames, make_moving_square(4))


def test_failed_save_keeps_the_earlier_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_mask(tmp_path / "m", EditMask(make_moving_square(4)))
    original_save = Image.Image.save
    calls: list[object] = []

    def save_until_full(self: Image.Image, *arguments: object, **options: object) -> None:
        calls.append(self)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        original_save(self, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", save_until_full)
    with pytest.raises(OSError, match="No space"):
        save_mask(tmp_path / "m", EditMask(make_moving_square(7)))
    assert torch.equal(load_mask(tmp_path / "m").frames, make_moving_square(4))
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
