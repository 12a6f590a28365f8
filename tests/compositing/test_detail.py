"""Detail above the model's resolution."""

from __future__ import annotations

import torch

from lora_edit.compositing.detail import add_detail
from lora_edit.types import Size
from lora_edit.video.resize import resize_frames


def moving(count: int = 4) -> torch.Tensor:
    """A fine random pattern that slides to the right by two pixels a frame."""
    fine = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    wide = (torch.nn.functional.interpolate(fine, size=(96, 128), mode="bicubic").clamp(0, 1)[0] * 160 + 40).to(torch.uint8)
    return torch.stack([wide[:, :, 20 - 2 * t : 116 - 2 * t] for t in range(count)]).permute(0, 2, 3, 1).contiguous()


def soft(frames: torch.Tensor) -> torch.Tensor:
    """As a model of a quarter of the resolution returns them."""
    return resize_frames(resize_frames(frames, Size(24, 24)), Size(96, 96))


def error(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left.int() - right.int()).abs()[8:-8, 8:-8].float().mean())


def restored(generated: torch.Tensor, source: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    return torch.stack(list(add_detail(generated, source, {0: first}, torch.ones(source.shape[:3], dtype=torch.bool), Size(24, 24))))


def test_where_the_source_was_drawn_its_detail_returns() -> None:
    source = moving()
    out = restored(soft(source), source, source[0])
    assert error(out[3], source[3]) < 0.1 * error(soft(source)[3], source[3])


def test_a_recoloured_clip_gets_its_own_detail() -> None:
    """Half the contrast, another tint: the gain is read off the first frame."""
    source = moving()
    truth = (source.float() * torch.tensor([0.5, 0.3, 0.9]) + torch.tensor([90.0, 20.0, 0.0])).to(torch.uint8)
    out = restored(soft(truth), source, truth[0])
    assert error(out[3], truth[3]) < 0.5 * error(soft(truth)[3], truth[3])


def test_what_the_first_frame_does_not_show_gets_none() -> None:
    """The model drew something dark that is in no picture it was given."""
    source = moving()
    dark = (soft(source).float() * 0.1).to(torch.uint8)
    assert error(restored(dark, source, source[0])[3], dark[3]) < 3


def test_what_was_left_alone_is_the_sources_own() -> None:
    """Half of the first frame is edited; the other half of a soft clip becomes the source bit for bit."""
    source = moving()
    first = source[0].clone()
    first[:, :30] = 255 - first[:, :30]
    made = soft(source)
    made[:, :, :30] = 255 - made[:, :, :30]
    out = restored(made, source, first)
    assert torch.equal(out[2][:, 60:], source[2][:, 60:])
    assert not torch.equal(out[2][:, :20], source[2][:, :20])


def textured(seed: int, height: int, width: int, low: int, high: int) -> torch.Tensor:
    """A random picture with structure of a few pixels, `[H, W, 3]` float."""
    noise = torch.rand(1, 3, height // 6, width // 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic")[0].permute(1, 2, 0) * (high - low) + low


def passing(things: list[torch.Tensor | None]) -> torch.Tensor:
    """A square that crosses a still ground, wearing `things[t]` `[36, 36, 3]` in frame t, or gone where None: `[T, 96, 96, 3]`."""
    frames = textured(1, 96, 96, 60, 200).repeat(len(things), 1, 1, 1)
    for number, thing in enumerate(things):
        if thing is not None:
            frames[number, 30:66, 6 + 6 * number : 42 + 6 * number] = thing
    return frames.clamp(0, 255).to(torch.uint8)


def along(generated: torch.Tensor, source: torch.Tensor, pictures: dict[int, torch.Tensor]) -> torch.Tensor:
    region = torch.ones(source.shape[:3], dtype=torch.bool)
    region[:, :26], region[:, 70:] = False, False
    return torch.stack(list(add_detail(generated, source, pictures, region, Size(24, 24))))


def test_an_edit_that_follows_the_source_is_moved_along_where_the_model_is_off() -> None:
    before, after = textured(2, 36, 36, 0, 250), textured(3, 36, 36, 120, 255)
    source, truth = passing([before] * 6), passing([after] * 6)
    model = (soft(truth).float() * 0.8 + 25).to(torch.uint8)
    out = along(model, source, {0: truth[0]})
    assert error(out[5], truth[5]) < 0.75 * error(model[5], truth[5])


def test_what_was_removed_does_not_drag_the_ground_along() -> None:
    """The flow of the thing that is gone is proven, yet nothing that is seen follows it."""
    source, truth = passing([textured(2, 36, 36, 0, 250)] * 6), passing([None] * 6)
    model = soft(truth)
    out = along(model, source, {0: truth[0]})
    assert error(out[5], truth[5]) <= error(model[5], truth[5])


def test_a_later_edited_frame_shows_what_the_first_did_not() -> None:
    """The thing turns in frame 3: another side of source and edit, which the model did not get."""
    sides, looks = [textured(n, 36, 36, 0, 250) for n in (2, 3)], [textured(n, 36, 36, 120, 255) for n in (4, 5)]
    source, truth = (passing([pair[0]] * 3 + [pair[1]] * 4) for pair in (sides, looks))
    model = (soft(truth).float() * 0.8 + 25).to(torch.uint8)
    once, twice = along(model, source, {0: truth[0]}), along(model, source, {0: truth[0], 6: truth[6]})
    assert error(twice[4], truth[4]) < 0.8 * error(once[4], truth[4])
    assert error(twice[1], truth[1]) < error(once[1], truth[1]) + 1.5
