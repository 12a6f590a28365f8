"""Fixtures of the video tests."""

import pytest

from lora_edit.types import Video
from video.clips import make_clip


@pytest.fixture
def clip() -> Video:
    """A clip of six frames of 64x48."""
    return make_clip()
