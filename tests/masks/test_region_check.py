"""A region that misses the edit is refused; what a person may mean passes."""

from __future__ import annotations

import pytest
import torch

from lora_edit.errors import RegionError
from lora_edit.masks.edit_region import RegionTrack, check_region_track, track_edit_region
from lora_edit.masks.region_check import check_region, is_whole_frame_edit
from lora_edit.masks.shapes import invert, shape_mask
from lora_edit.types import EditMask

HEIGHT, WIDTH = 96, 128


def textured(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    noise = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic")[0].permute(1, 2, 0)
    return (large * 200 + 20).clamp(0, 255).to(torch.uint8)


def region(left: int, top: int, width: int, height: int) -> EditMask:
    frames = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.bool)
    frames[:, top : top + height, left : left + width] = True
    return EditMask(frames)


def recoloured(*places: tuple[int, int, int, int]) -> torch.Tensor:
    picture = textured().float()
    for left, top, width, height in places:
        picture[top : top + height, left : left + width] *= torch.tensor([0.4, 1.0, 1.2])
    return picture.clamp(0, 255).to(torch.uint8)


def redrawn(picture: torch.Tensor) -> torch.Tensor:
    """As image editors hand it back: every pixel a little off, and all of them darker."""
    noise = torch.randint(-6, 7, picture.shape, generator=torch.Generator().manual_seed(3))
    return (picture.int() + noise - 4).clamp(0, 255).to(torch.uint8)


THING = (40, 30, 32, 40)


@pytest.mark.parametrize("given", ["--mask", "--box"])
@pytest.mark.parametrize(
    ("places", "mask"),
    [
        ([THING], region(*THING)),
        ([THING], region(30, 20, 60, 60)),  # loose
        ([THING], region(0, 0, WIDTH, HEIGHT)),
        ([THING], region(44, 34, 24, 32)),  # a little tight
        ([THING], region(30, 20, 60, 30)),  # half of it
        ([(50, 40, 4, 4)], region(*THING)),  # a button
        ([(50, 40, 2, 2)], region(*THING)),  # less than a speck
        ([], region(*THING)),  # nothing to hold against it
        ([(4, 4, 20, 30), (90, 40, 36, 50)], region(2, 2, 26, 36)),  # one of two things, on purpose
        ([(0, 0, WIDTH, HEIGHT)], region(0, 0, WIDTH, HEIGHT)),
    ],
)
def test_what_a_person_may_mean_passes(places: list[tuple[int, int, int, int]], mask: EditMask, given: str) -> None:
    for picture in (recoloured(*places), redrawn(recoloured(*places))):
        check_region(textured(), picture, mask, mask, given)


@pytest.mark.parametrize(
    ("places", "mask", "given", "words"),
    [
        ([THING], invert(region(*THING)), "--mask", "covers the unedited part and leaves out the edited one; invert it"),
        ([THING], invert(region(30, 20, 60, 60)), "--mask", "invert it"),
        (
            [THING],
            region(90, 60, 30, 30),
            "--box",
            "100% of what the edited first frame changes lies outside of --box; give --box 40,30,32,40",
        ),
        ([THING], region(64, 30, 32, 40), "--box", "75% of what"),
        ([THING], region(0, 0, 0, 0), "--mask", "--mask is empty in frame 0"),
        ([(0, 0, WIDTH, HEIGHT)], region(*THING), "--mask", "leave it out to edit the whole frame"),
    ],
)
def test_a_region_off_the_edit_is_refused(places: list[tuple[int, int, int, int]], mask: EditMask, given: str, words: str) -> None:
    for picture in (recoloured(*places), redrawn(recoloured(*places))):
        with pytest.raises(RegionError) as fault:
            check_region(textured(), picture, mask, shape_mask(mask, "box" if mask.frames.any() else "as-is", 0, 1), given)
        assert words.split(";")[0].partition(" of what")[0] in str(fault.value)
        assert "masks.check=false" in str(fault.value)
        assert fault.value.image.shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(RegionError, match=words.replace("%", ".")):
        check_region(textured(), recoloured(*places), mask, mask, given)


@pytest.mark.parametrize(
    ("picture", "most"),
    [
        (recoloured(THING), False),
        (recoloured((0, 0, 60, HEIGHT)), False),
        (redrawn(textured()), False),
        (recoloured((0, 0, 100, HEIGHT)), True),
        ((textured().float() * torch.tensor([0.4, 0.45, 0.6])).to(torch.uint8), True),
        (255 - textured(), True),
        (textured(7), True),
    ],
)
def test_most_of_the_picture(picture: torch.Tensor, most: bool) -> None:
    assert is_whole_frame_edit(textured(), picture) == most


def test_a_style_is_an_edit_of_the_whole_frame_and_says_so() -> None:
    frames = textured().repeat(3, 1, 1, 1)
    found = track_edit_region(frames, (frames[0].float() * 0.4).to(torch.uint8))
    assert found.region.frames.all() and not found.lost_frames
    assert len(found.region.notes) == 1 and "most of the picture" in found.region.notes[0]


def test_a_region_that_was_lost_for_long_is_refused() -> None:
    frames, mask = textured().repeat(8, 1, 1, 1), EditMask(torch.zeros(8, HEIGHT, WIDTH, dtype=torch.bool))
    mask.frames[:, 30:60, 40:70] = True
    check_region_track(frames[0], RegionTrack(mask, (6, 7)), frames)
    check_region_track(frames[0], RegionTrack(mask, (4, 5, 6, 7), left_picture=True), frames)
    with pytest.raises(RegionError, match=r"lost from frame 4 on .4 of 8 frames.; give --box X,Y,W,H:FRAME") as fault:
        check_region_track(frames[0], RegionTrack(mask, (4, 5, 6, 7)), frames)
    assert fault.value.image.shape == (HEIGHT, 2 * WIDTH, 3)
