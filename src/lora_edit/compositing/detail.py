"""What the model can't return sharply (ours): the source's own pixels where nothing was edited, and detail above the model's resolution.

A loose box holds background and other things that the edit leaves alone, and a model that works on fewer pixels than the source
returns a soft region. Three cases, told apart per pixel by what the model drew:

- it drew the source, and what is seen here was not edited in the first frame: the source's own pixel;
- it drew what the first frame's edit makes of the source here (a recoloured cloth): the source's detail times the local gain that turned
  the source's first frame into the edited one, and the detail that the edit added, both moved along the source's optical flow;
- it drew something else (a side that the first frame never showed): what it drew. Soft is better than wrong.

Injecting detail by a local regression is common in pan-sharpening; here the regression is on the edited first frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.types import Size
from lora_edit.video.flow import places_in_first, sample

Floats = npt.NDArray[np.float32]

ALIKE = (8.0, 28.0)
"""Levels of 255 of difference, over some pixels of the model's, at which two pictures count as the same, and as another."""

GAIN = 1.5
"""Largest gain of the source's detail."""

RIDGE = 4.0
"""Pulls the gain to 0 where the source has little detail (variance in squared levels)."""


def add_detail(generated: Iterable[torch.Tensor], source: torch.Tensor, edited_first: torch.Tensor, size: Size) -> Iterator[torch.Tensor]:
    """The `generated` frames `[H, W, 3]` uint8, enlarged from the model's frame `size`, with their detail restored, one by one.

    `source` `[T, H, W, 3]` and `edited_first` `[H, W, 3]` are the same window at full resolution.
    """
    height, width = source.shape[1:3]
    reach = max(height / size.height, width / size.width, 1.0)
    edit, first = _floats(edited_first), _floats(source[0])
    soft_edit, soft_first = _soften(edit, size), _soften(first, size)
    gain = _local_gain(first - soft_first, edit - soft_edit, 4 * reach)
    added = edit - soft_edit - gain * (first - soft_first)
    untouched = _alike(edit, first, 2 * reach)
    for frame, before, places in zip(generated, source, places_in_first(source), strict=True):
        made, now = _floats(frame), _floats(before)
        soft_now = _soften(now, size)
        edited = _alike(made, sample(soft_edit, places), 2 * reach)
        made += edited * (sample(gain, places) * (now - soft_now) + sample(added, places))
        kept = _alike(_soften(made, size), soft_now, 3 * reach) * _column(sample(untouched, places))
        made += kept * (now - made)
        yield torch.from_numpy(made.round().clip(0, 255).astype(np.uint8))


def _floats(frame: torch.Tensor) -> Floats:
    return frame.numpy().astype(np.float32)


def _soften(picture: Floats, size: Size) -> Floats:
    """What is left of a picture at the model's resolution: area average down, cubic up, as the model's own frames are made."""
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (size.width, size.height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _local_gain(before: Floats, after: Floats, reach: float) -> Floats:
    """Per pixel and channel, the factor on `before` that comes nearest to `after` over `reach` pixels around, in [-GAIN, GAIN]."""
    covariance, variance = _blur(before * after, reach), _blur(before * before, reach)
    return np.asarray((covariance / (variance + RIDGE)).clip(-GAIN, GAIN), np.float32)


def _alike(left: Floats, right: Floats, reach: float) -> Floats:
    """1 where two pictures agree, 0 where they differ, `[H, W, 1]`; judged over `reach` pixels, so that fine grain does not count."""
    red, green, blue = cv2.split(np.abs(_blur(left - right, reach)))
    away = cv2.max(cv2.max(red, green), blue)[..., None]
    return np.asarray(((ALIKE[1] - away) / (ALIKE[1] - ALIKE[0])).clip(0, 1), np.float32)


def _blur(picture: Floats, reach: float) -> Floats:
    # A wide blur has nothing that a smaller picture would lose, and costs a fraction there.
    height, width = picture.shape[:2]
    part = max(1, int(reach / 4))
    small = cv2.resize(picture, (max(1, width // part), max(1, height // part)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), reach / 2 / part)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _column(picture: Floats) -> Floats:
    """`[H, W, 1]` of what OpenCV returns as `[H, W]`."""
    return picture[..., None] if picture.ndim == 2 else picture
