"""Prompts, and the segmenter without weights: outlines, corrections, several objects, hidden ones."""

from __future__ import annotations

import pytest
import torch

from lora_edit.errors import MaskError
from lora_edit.masks.boxes import KeyframeBox
from lora_edit.masks.embedded_segmenter import EmbeddedSegmenter
from lora_edit.masks.segmenter import Click, Prompt, check_prompts, group_by_object
from lora_edit.types import Box, Size
from masks.things import HEIGHT, WIDTH, disc_clip, jar_clip, overlap, pale_clip

DISC = Box(30, 28, 40, 40)


def test_a_click_or_a_box_outlines_the_thing_in_every_frame() -> None:
    clip, truth = disc_clip()
    for prompt in (Click(50, 48), KeyframeBox(DISC, 0)):
        mask = EmbeddedSegmenter().segment(clip, [prompt])["1"]
        assert min(overlap(found, true) for found, true in zip(mask.frames, truth, strict=True)) > 0.9
        assert mask.notes == ()


def test_it_goes_backward_too_and_the_same_every_time() -> None:
    clip, truth = disc_clip()
    masks = [EmbeddedSegmenter().segment(clip, [Click(65, 48, frame=5)])["1"].frames for _ in range(2)]
    assert torch.equal(*masks)
    assert overlap(masks[0][0], truth[0]) > 0.9


def test_several_objects_have_masks_of_their_own() -> None:
    clip, truth = disc_clip(second=True)
    counts: list[tuple[int, int]] = []
    found = EmbeddedSegmenter().segment(clip, [Click(50, 48), Click(20, 20, name="red")], lambda done, total: counts.append((done, total)))
    assert list(found) == ["1", "red"]
    assert overlap(found["1"].frames, truth) > 0.9
    assert not (found["1"].frames & found["red"].frames).any()
    assert counts == [(done, 12) for done in range(1, 13)]


def test_a_click_corrects_from_its_frame_on_and_half_the_way_back() -> None:
    clip, _ = disc_clip(second=True)
    both: list[Prompt] = [KeyframeBox(Box(5, 5, 70, 70), 0)]
    segmenter = EmbeddedSegmenter()
    before = segmenter.segment(clip, both)["1"].frames
    assert before[:, 20, 20].all()
    after = segmenter.segment(clip, [*both, Click(20, 20, is_positive=False, frame=4)])["1"].frames
    assert after[:2, 20, 20].all()
    assert not after[3:, 20, 20].any()
    assert after[5, 48, 65]


def test_a_click_takes_in_what_was_missed() -> None:
    clip, _ = disc_clip(second=True)
    prompts = [KeyframeBox(DISC, 0), Click(20, 20, frame=2)]
    assert EmbeddedSegmenter().segment_frame(clip, prompts, 2)[20, 20]
    assert not EmbeddedSegmenter().segment_frame(clip, prompts[:1], 2)[20, 20]


def test_the_outline_at_a_frame_is_what_the_clip_gets_there() -> None:
    clip, _ = disc_clip()
    segmenter = EmbeddedSegmenter()
    outline = segmenter.segment_frame(clip, [Click(50, 48)], 3)
    assert torch.equal(outline, segmenter.segment(clip, [Click(50, 48)])["1"].frames[3])


def test_an_object_behind_something_returns_and_a_note_says_where_it_was_hidden() -> None:
    clip, truth = disc_clip(frames=14, pace=6, post=(75, 120))
    mask = EmbeddedSegmenter().segment(clip, [Click(50, 48)])["1"]
    hidden = [number for number, true in enumerate(truth) if not true.any()]
    assert hidden
    assert not mask.frames[hidden].any()
    assert overlap(mask.frames[-1], truth[-1]) > 0.8
    assert any(f"in frames {hidden[0]}" in note or "hidden or lost" in note for note in mask.notes)


def test_a_ground_of_the_objects_own_colours_is_not_taken_in() -> None:
    clip, truth = pale_clip()
    found = EmbeddedSegmenter().segment(clip, [Click(36, 54)])["1"].frames
    assert overlap(found[8], truth[8]) > 0.9
    assert min(overlap(found[number], truth[number]) for number in range(len(clip))) > 0.6


def test_each_frame_goes_by_the_nearer_of_two_boxes() -> None:
    clip, truth = disc_clip(frames=8)
    clip[4:], truth[4:] = clip[4:].flip(2), truth[4:].flip(2)  # a cut
    x = WIDTH - 50 - 3 * 6
    found = EmbeddedSegmenter().segment(clip, [KeyframeBox(DISC, 0), KeyframeBox(Box(x - 21, 27, 42, 42), 6)])["1"].frames
    assert min(overlap(found[number], truth[number]) for number in (0, 1, 2, 3, 4, 5, 6, 7)) > 0.9


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "nothing is marked"),
        ([Click(WIDTH, 5)], f"outside the frame, which is {WIDTH}x{HEIGHT}"),
        ([KeyframeBox(Box(500, 0, 5, 5), 0)], f"outside the frame, which is {WIDTH}x{HEIGHT}"),
        ([Click(5, 5, frame=6)], "frames 0 to 5"),
        ([Click(5, 5, is_positive=False)], "no click is on it yet"),
        ([Click(5, 5), Click(9, 9, is_positive=False, name="hat")], "object hat: no click is on it yet"),
    ],
)
def test_bad_prompts_say_what_to_do(prompts: list[Prompt], message: str) -> None:
    with pytest.raises(MaskError, match=message):
        check_prompts(prompts, 6, Size(HEIGHT, WIDTH))


def test_prompts_are_grouped_by_object_and_frame_in_their_order() -> None:
    prompts = [Click(1, 2, frame=4), KeyframeBox(DISC, 0, "b"), Click(3, 4, is_positive=False, frame=4), Click(5, 6)]
    first, second = group_by_object(prompts).values()
    assert [(each.frame, each.positive_points, each.negative_points) for each in first] == [(4, ((1, 2),), ((3, 4),)), (0, ((5, 6),), ())]
    assert second[0].box == (30, 28, 70, 68)


def test_a_part_does_not_grow_over_the_rest_of_a_thing_of_its_colour() -> None:
    """A lid as dark as its jar stays the lid, from one box around it in frame 0."""
    clip, truth = jar_clip()
    found = EmbeddedSegmenter().segment(clip, [KeyframeBox(Box(31, 19, 38, 18), 0)])["1"].frames
    assert overlap(found[0], truth[0]) > 0.8
    assert overlap(found[-1], truth[-1]) > 0.7
