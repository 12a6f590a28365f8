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
    return torch.stack(list(add_detail(generated, source, first, Size(24, 24))))


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
    assert torch.equal(restored(dark, source, source[0])[3], dark[3])


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
