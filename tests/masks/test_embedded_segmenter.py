"""The segmenter without weights: masks, corrections, several objects, hidden objects."""

from __future__ import annotations

import torch

from lora_edit.masks.boxes import KeyframeBox
from lora_edit.masks.embedded_segmenter import EmbeddedSegmenter
from lora_edit.masks.segmenter import Click, Prompt
from lora_edit.types import Box
from masks.synthetic_clips import WIDTH, disc_clip, jar_clip, overlap, pale_clip

DISC = Box(30, 28, 40, 40)


def test_click_or_box_segments_the_object_in_every_frame() -> None:
    clip, truth = disc_clip()
    for prompt in (Click(50, 48), KeyframeBox(DISC, 0)):
        mask = EmbeddedSegmenter().segment(clip, [prompt])["1"]
        assert min(overlap(found, expected) for found, expected in zip(mask.frames, truth, strict=True)) > 0.9
        assert mask.notes == ()


def test_backward_propagation_is_deterministic() -> None:
    clip, truth = disc_clip()
    masks = [EmbeddedSegmenter().segment(clip, [Click(65, 48, frame=5)])["1"].frames for _ in range(2)]
    assert torch.equal(*masks)
    assert overlap(masks[0][0], truth[0]) > 0.9


def test_several_objects_have_separate_masks() -> None:
    clip, truth = disc_clip(second=True)
    counts: list[tuple[int, int]] = []
    masks = EmbeddedSegmenter().segment(clip, [Click(50, 48), Click(20, 20, name="red")], lambda done, total: counts.append((done, total)))
    assert list(masks) == ["1", "red"]
    assert overlap(masks["1"].frames, truth) > 0.9
    assert not (masks["1"].frames & masks["red"].frames).any()
    assert counts == [(done, 12) for done in range(1, 13)]


def test_correction_applies_from_its_frame_and_halfway_back() -> None:
    clip, _ = disc_clip(second=True)
    both: list[Prompt] = [KeyframeBox(Box(5, 5, 70, 70), 0)]
    segmenter = EmbeddedSegmenter()
    before = segmenter.segment(clip, both)["1"].frames
    assert before[:, 20, 20].all()
    after = segmenter.segment(clip, [*both, Click(20, 20, is_positive=False, frame=4)])["1"].frames
    assert after[:2, 20, 20].all()
    assert not after[3:, 20, 20].any()
    assert after[5, 48, 65]


def test_click_adds_a_missed_part() -> None:
    clip, _ = disc_clip(second=True)
    prompts = [KeyframeBox(DISC, 0), Click(20, 20, frame=2)]
    assert EmbeddedSegmenter().segment_frame(clip, prompts, 2)[20, 20]
    assert not EmbeddedSegmenter().segment_frame(clip, prompts[:1], 2)[20, 20]


def test_segment_frame_matches_segment() -> None:
    clip, _ = disc_clip()
    segmenter = EmbeddedSegmenter()
    mask = segmenter.segment_frame(clip, [Click(50, 48)], 3)
    assert torch.equal(mask, segmenter.segment(clip, [Click(50, 48)])["1"].frames[3])


def test_occluded_object_returns_and_a_note_lists_hidden_frames() -> None:
    clip, truth = disc_clip(frames=14, pace=6, post=(75, 120))
    mask = EmbeddedSegmenter().segment(clip, [Click(50, 48)])["1"]
    hidden = [number for number, true in enumerate(truth) if not true.any()]
    assert hidden
    assert not mask.frames[hidden].any()
    assert overlap(mask.frames[-1], truth[-1]) > 0.8
    assert any(f"in frames {hidden[0]}" in note or "hidden or lost" in note for note in mask.notes)


def test_background_of_the_objects_colours_is_excluded() -> None:
    clip, truth = pale_clip()
    masks = EmbeddedSegmenter().segment(clip, [Click(36, 54)])["1"].frames
    assert overlap(masks[8], truth[8]) > 0.9
    assert min(overlap(masks[number], truth[number]) for number in range(len(clip))) > 0.6


def test_each_frame_uses_the_nearer_of_two_boxes() -> None:
    clip, truth = disc_clip(frames=8)
    clip[4:], truth[4:] = clip[4:].flip(2), truth[4:].flip(2)  # a cut
    x = WIDTH - 50 - 3 * 6
    masks = EmbeddedSegmenter().segment(clip, [KeyframeBox(DISC, 0), KeyframeBox(Box(x - 21, 27, 42, 42), 6)])["1"].frames
    assert min(overlap(masks[number], truth[number]) for number in (0, 1, 2, 3, 4, 5, 6, 7)) > 0.9


def test_part_does_not_grow_over_an_object_of_its_colour() -> None:
    """A lid as dark as its jar remains the lid, from one box around it in frame 0."""
    clip, truth = jar_clip()
    masks = EmbeddedSegmenter().segment(clip, [KeyframeBox(Box(31, 19, 38, 18), 0)])["1"].frames
    assert overlap(masks[0], truth[0]) > 0.8
    assert overlap(masks[-1], truth[-1]) > 0.7
