"""A session: the order of the steps, and a model that several sessions share."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from lora_edit.config import EditSettings, resolve_settings
from lora_edit.inputs import Clip
from lora_edit.resolved import resolve_edit
from lora_edit.session import Session
from lora_edit.types import EditMask, Video
from tiny_random import tiny_random_family

QUICK = (
    "training.motion_steps=2", "training.batch_size=1", "training.recolour=0.0", "generation.steps=1", "method.hint=none", "lora.rank=2",
    "training.learning_rate=0.01",
)  # fmt: skip


def build_inputs(seed: int = 0) -> Clip:
    """Five noise frames of 32x32 with a region in the middle and a red first frame."""
    frames = torch.randint(0, 256, (5, 32, 32, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    region = torch.zeros(5, 32, 32, dtype=torch.bool)
    region[:, 8:24, 8:24] = True
    first = frames[0].clone()
    first[8:24, 8:24] = torch.tensor([200, 30, 30], dtype=torch.uint8)
    return Clip(Video(frames, Fraction(8), tuple(i / 8 for i in range(5))), EditMask(region), first, {}, {})


def quick_settings(*assignments: str) -> EditSettings:
    """The embedded model's settings with two steps."""
    return resolve_settings({"input": {"source": "s", "first_frame": "f"}}, (*QUICK, *assignments))


def test_a_session_runs_from_inputs_to_frames() -> None:
    inputs = build_inputs()
    session = Session(tiny_random_family(), inputs, quick_settings())
    assert session.prepare() is session.prepare(), "the clip is resized once"
    session.train()
    pixels = session.generate()
    video = session.composite(pixels)
    assert video.frames.shape == inputs.video.frames.shape
    assert torch.equal(video.frames[1:, :2], inputs.video.frames[1:, :2])


def test_sessions_share_a_model_without_influencing_each_other() -> None:
    model = tiny_random_family()
    first, second = (Session(model, build_inputs(seed), quick_settings()) for seed in (0, 1))
    first.train()
    alone = first.generate()
    second.train()
    assert not torch.equal(second.generate(), alone)
    first.train()
    assert torch.equal(first.generate(), alone), "training starts from a fresh LoRA each time"


def test_fitting_further_keeps_the_lora() -> None:
    session = Session(tiny_random_family(), build_inputs(), quick_settings())
    stages = session.build_stages()
    first = session.fit(stages)
    further = session.fit(stages, reset=False)
    assert len(first) == len(further) == 2 and further != first
    assert session.fit(stages) == first


def test_a_resolved_edit_names_the_model_once() -> None:
    clip = build_inputs()
    edit = resolve_edit(quick_settings(), clip)
    assert (edit.record.name, edit.num_frames, edit.has_references) == ("tiny", 5, False)
    assert edit.geometry is edit.record.geometry and edit.canvas_size.width % edit.geometry.token_size == 0
    assert resolve_edit(quick_settings(), replace(clip, references={3: clip.first_frame})).has_references
    with pytest.raises(AttributeError):
        edit.checkpoint = "elsewhere"  # type: ignore[misc]
