"""Validation and grouping of prompts."""

from __future__ import annotations

import pytest

from lora_edit.errors import MaskError
from lora_edit.masks.boxes import KeyframeBox
from lora_edit.masks.segmenter import Click, Prompt, check_prompts, group_by_object
from lora_edit.types import Box, Size
from masks.synthetic_clips import HEIGHT, WIDTH

DISC = Box(30, 28, 40, 40)


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
def test_bad_prompts_raise(prompts: list[Prompt], message: str) -> None:
    with pytest.raises(MaskError, match=message):
        check_prompts(prompts, 6, Size(HEIGHT, WIDTH))


def test_prompts_are_grouped_by_object_and_frame_in_order() -> None:
    prompts = [Click(1, 2, frame=4), KeyframeBox(DISC, 0, "b"), Click(3, 4, is_positive=False, frame=4), Click(5, 6)]
    first, second = group_by_object(prompts).values()
    assert [(each.frame, each.positive_points, each.negative_points) for each in first] == [(4, ((1, 2),), ((3, 4),)), (0, ((5, 6),), ())]
    assert second[0].box == DISC
