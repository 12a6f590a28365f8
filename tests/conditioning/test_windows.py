"""Tests of windows: they cover a clip in order, with valid lengths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lora_edit.conditioning.windows import plan_inference_windows, plan_training_windows


@given(st.integers(1, 400), st.sampled_from([9, 17, 81]), st.integers(1, 8))
def test_inference_windows(num_frames: int, longest: int, overlap: int) -> None:
    """Frames are generated in order; each window starts with frame 0 and counts the frames that it shares."""
    done = 0
    for window in plan_inference_windows(num_frames, longest, overlap):
        assert window.frames[0] == 0 and len(window.frames) % 4 == 1 and len(window.frames) <= longest
        assert all(frame < done for frame in window.frames[1 : window.num_overlap_frames + 1])
        new = window.frames[window.num_overlap_frames + (1 if done else 0) :]
        assert new[0] == done
        done = window.frames[-1] + 1
    assert done == num_frames


@given(st.integers(1, 400), st.sampled_from([9, 17, 81]))
def test_training_windows(num_frames: int, longest: int) -> None:
    """Every frame is in at least one window."""
    windows = plan_training_windows(num_frames, longest)
    assert {frame for window in windows for frame in window.frames} == set(range(num_frames))
    assert all(len(window.frames) % 4 == 1 for window in windows)
