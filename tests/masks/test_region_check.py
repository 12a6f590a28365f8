"""Regions that miss the edit raise; regions that are plausible on purpose pass."""

from __future__ import annotations

import pytest
import torch

from lora_edit.errors import RegionError
from lora_edit.masks.edit_region import RegionTrack, check_region_track, track_edit_region
from lora_edit.masks.region_check import check_region, is_whole_frame_edit
from lora_edit.masks.shapes import invert, shape_mask
from lora_edit.types import EditMask

HEIGHT, WIDTH = 96, 128


def make_texture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    noise = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic")[0].permute(1, 2, 0)
    return (large * 200 + 20).clamp(0, 255).to(torch.uint8)


def make_region(left: int, top: int, width: int, height: int) -> EditMask:
    frames = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.bool)
    frames[:, top : top + height, left : left + width] = True
    return EditMask(frames)


def recolour(*rectangles: tuple[int, int, int, int]) -> torch.Tensor:
    picture = make_texture().float()
    for left, top, width, height in rectangles:
        picture[top : top + height, left : left + width] *= torch.tensor([0.4, 1.0, 1.2])
    return picture.clamp(0, 255).to(torch.uint8)


def redraw(picture: torch.Tensor) -> torch.Tensor:
    """Simulate an image editor's output: every pixel slightly changed, and all of them darker."""
    noise = torch.randint(-6, 7, picture.shape, generator=torch.Generator().manual_seed(3))
    return (picture.int() + noise - 4).clamp(0, 255).to(torch.uint8)


OBJECT = (40, 30, 32, 40)


@pytest.mark.parametrize("option", ["--mask", "--box"])
@pytest.mark.parametrize(
    ("rectangles", "mask"),
    [
        ([OBJECT], make_region(*OBJECT)),
        ([OBJECT], make_region(30, 20, 60, 60)),  # loose
        ([OBJECT], make_region(0, 0, WIDTH, HEIGHT)),
        ([OBJECT], make_region(44, 34, 24, 32)),  # a little tight
        ([OBJECT], make_region(30, 20, 60, 30)),  # half of it
        ([(50, 40, 4, 4)], make_region(*OBJECT)),  # a button
        ([(50, 40, 2, 2)], make_region(*OBJECT)),  # smaller than a reported component
        ([], make_region(*OBJECT)),  # no change to compare with
        ([(4, 4, 20, 30), (90, 40, 36, 50)], make_region(2, 2, 26, 36)),  # one of two objects, on purpose
        ([(0, 0, WIDTH, HEIGHT)], make_region(0, 0, WIDTH, HEIGHT)),
    ],
)
def test_plausible_region_passes(rectangles: list[tuple[int, int, int, int]], mask: EditMask, option: str) -> None:
    for picture in (recolour(*rectangles), redraw(recolour(*rectangles))):
        check_region(make_texture(), picture, mask, mask, option)


@pytest.mark.parametrize(
    ("rectangles", "mask", "option", "message"),
    [
        ([OBJECT], invert(make_region(*OBJECT)), "--mask", "covers the unedited part and leaves out the edited one; invert it"),
        ([OBJECT], invert(make_region(30, 20, 60, 60)), "--mask", "invert it"),
        (
            [OBJECT],
            make_region(90, 60, 30, 30),
            "--box",
            "100% of what the edited first frame changes lies outside of --box; give --box 40,30,32,40",
        ),
        ([OBJECT], make_region(64, 30, 32, 40), "--box", "75% of what"),
        ([OBJECT], make_region(0, 0, 0, 0), "--mask", "--mask is empty in frame 0"),
        ([(0, 0, WIDTH, HEIGHT)], make_region(*OBJECT), "--mask", "leave it out to edit the whole frame"),
    ],
)
def test_region_that_misses_the_edit_raises(rectangles: list[tuple[int, int, int, int]], mask: EditMask, option: str, message: str) -> None:
    for picture in (recolour(*rectangles), redraw(recolour(*rectangles))):
        with pytest.raises(RegionError) as error:
            check_region(make_texture(), picture, mask, shape_mask(mask, "box" if mask.frames.any() else "as-is", 0, 1), option)
        assert message.split(";")[0].partition(" of what")[0] in str(error.value)
        assert "masks.check=false" in str(error.value)
        assert error.value.image.shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(RegionError, match=message.replace("%", ".")):
        check_region(make_texture(), recolour(*rectangles), mask, mask, option)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (recolour(OBJECT), False),
        (recolour((0, 0, 60, HEIGHT)), False),
        (redraw(make_texture()), False),
        (recolour((0, 0, 100, HEIGHT)), True),
        ((make_texture().float() * torch.tensor([0.4, 0.45, 0.6])).to(torch.uint8), True),
        (255 - make_texture(), True),
        (make_texture(7), True),
    ],
)
def test_is_whole_frame_edit(picture: torch.Tensor, expected: bool) -> None:
    assert is_whole_frame_edit(make_texture(), picture) == expected


def test_style_change_is_a_whole_frame_edit_with_a_note() -> None:
    frames = make_texture().repeat(3, 1, 1, 1)
    track = track_edit_region(frames, (frames[0].float() * 0.4).to(torch.uint8))
    assert track.region.frames.all() and not track.lost_frames
    assert len(track.region.notes) == 1 and "most of the picture" in track.region.notes[0]


def test_region_lost_in_many_frames_raises() -> None:
    frames, mask = make_texture().repeat(8, 1, 1, 1), EditMask(torch.zeros(8, HEIGHT, WIDTH, dtype=torch.bool))
    mask.frames[:, 30:60, 40:70] = True
    check_region_track(frames[0], RegionTrack(mask, (6, 7)), frames)
    check_region_track(frames[0], RegionTrack(mask, (4, 5, 6, 7), left_picture=True), frames)
    with pytest.raises(RegionError, match=r"lost from frame 4 on .4 of 8 frames.; give --box X,Y,W,H:FRAME") as error:
        check_region_track(frames[0], RegionTrack(mask, (4, 5, 6, 7)), frames)
    assert error.value.image.shape == (HEIGHT, 2 * WIDTH, 3)
