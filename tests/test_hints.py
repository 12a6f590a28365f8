"""What is predicted inside the region, at the model's size."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from lora_edit.canvas import build_canvas
from lora_edit.compositing.settings import CompositingSettings
from lora_edit.hints import ASSUMED_ERROR, Hints
from lora_edit.inputs import Clip
from lora_edit.models.families.embedded.record import TINY
from lora_edit.types import EditMask, Video

COUNT, SIDE = 5, 64


def clip() -> Clip:
    """A bright square that moves over a dark slope, and turns green."""
    ramp = torch.linspace(20, 120, SIDE).to(torch.uint8)[None, :, None].expand(SIDE, SIDE, 3)
    frames, mask = ramp.expand(COUNT, -1, -1, -1).clone(), torch.zeros(COUNT, SIDE, SIDE, dtype=torch.bool)
    for t in range(COUNT):
        frames[t, 20:40, 12 + 3 * t : 32 + 3 * t] = 200
        mask[t, 16:44, 8 + 3 * t : 36 + 3 * t] = True
    edited = frames[[0, 3]].clone()
    edited[0, 20:40, 12:32] = torch.tensor([30, 190, 60], dtype=torch.uint8)
    edited[1, 20:40, 21:41] = torch.tensor([30, 190, 60], dtype=torch.uint8)
    video = Video(frames, Fraction(8), tuple(i / 8 for i in range(COUNT)))
    return Clip(video, EditMask(mask), edited[0], {3: edited[1]}, {})


def hints(kind: str, confidence: bool = True) -> Hints:
    canvas = build_canvas(clip(), TINY.geometry, CompositingSettings(crop=False), align_to_tokens=True)
    return Hints(clip(), canvas, kind, confidence)


def test_without_a_hint_there_is_none() -> None:
    none = hints("none")
    assert none.generation_hint is None
    assert none.training_hint is None
    assert none.build_reference_hint(3) is None


@pytest.mark.parametrize("kind", ["box", "flow", "explained"])
def test_every_kind_has_the_canvas_s_shape(kind: str) -> None:
    made = hints(kind)
    height, width = made.canvas.size.height, made.canvas.size.width
    for hint, count in ((made.generation_hint, COUNT), (made.training_hint, COUNT), (made.build_reference_hint(3), 2)):
        assert hint is not None
        assert hint.pixels.shape == (3, count, height, width)
        assert hint.error.shape == (1, count, height, width)
        assert float(hint.error.min()) > 0
        assert float(hint.pixels.abs().max()) <= 1


def test_the_edit_and_not_the_source_is_predicted_for_generation() -> None:
    edited = hints("explained").generation_hint
    assert edited is not None
    red, green, _ = edited.pixels[:, 2, edited.pixels.shape[2] // 2 - 4, edited.pixels.shape[3] * 28 // 64]
    assert green > red + 0.5


def test_the_source_is_predicted_for_training() -> None:
    made = hints("explained")
    source = made.training_hint
    assert source is not None
    assert float((source.pixels - made.canvas.source).abs().mean()) < 0.05


def test_without_confidence_every_pixel_is_doubted_alike() -> None:
    hint = hints("explained", confidence=False).generation_hint
    assert hint is not None
    assert torch.equal(hint.error, torch.full_like(hint.error, ASSUMED_ERROR))


def test_frames_of_a_hint_are_taken_together() -> None:
    hint = hints("box").generation_hint
    assert hint is not None
    part = hint.select_frames(torch.tensor([0, 3, 3]))
    assert torch.equal(part.pixels[:, 1], hint.pixels[:, 3])
    assert part.error.shape[1] == 3
