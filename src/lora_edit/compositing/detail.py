"""What the model can't return sharply (ours): the source's own pixels, the edited first frame moved along, and fine detail.

A loose box holds background and other things that the edit leaves alone, and a model that works on fewer pixels than the source
returns a soft region. What the source shows is known, and so is how it moves: its optical flow is proven wherever the source's first
frame, moved along it, gives the source's frame here. (Later frames that a person edited serve as the first one does.)
Four cases, told apart per pixel by what the model drew:

- it drew the source, and what is seen here was not edited in the first frame: the source's own pixel;
- it drew roughly what the edited first frame shows when moved along proven flow, and the edit follows that motion (the thing
  that was removed moves, what is seen in its place does not; `Follows`): the moved edit, lit as the source is here;
- it drew what the first frame's edit makes of the source here (a recoloured cloth): the source's detail times the local gain that turned
  the source's first frame into the edited one, and the detail that the edit added, both moved along the flow;
- it drew something else (a side that the first frame never showed): what it drew. Soft is better than wrong.

Injecting detail by a local regression is common in pan-sharpening; here the regression is on the edited first frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.types import Size
from lora_edit.video.flow import grid, places_along, sample

Floats = npt.NDArray[np.float32]

ALIKE = (8.0, 28.0)
"""Levels of 255 of difference, over some pixels of the model's, at which two pictures count as the same, and as another."""

GAIN = 1.5
"""Largest gain of the source's detail."""

RIDGE = 4.0
"""Pulls the gain to 0 where the source has little detail (variance in squared levels)."""

PROVEN = 24.0
"""Flow whose moved source frame is this many levels off counts for a third."""

NEAR = (12.0, 20.0, 90.0)
"""Levels between what the model drew and the moved edit at which they count equally: where flow is unproven; proven, of what was not
edited; proven, of what was. Over one latent cell: the model blurs and misplaces by that much even when it means the same."""

LIGHT = 1.33
"""Largest change of light between the first frame and this one, as a factor."""


@dataclass(frozen=True)
class Guess:
    """What one edited picture says of a frame; all `[H, W, 1 or 3]`.

    `moved`: its look at the model's resolution, moved here; `detail`: what is finer than that; `edited`: 1 where it is not the source's;
    `share`: how far to believe it; `proven`: how far its flow can be.
    """

    moved: Floats
    detail: Floats
    edited: Floats
    share: Floats
    proven: Floats


class Picture:
    """An edited frame beside the source's own: what the edit did there, and to which later or earlier frame it can be moved."""

    def __init__(self, edited: torch.Tensor, source: torch.Tensor, size: Size) -> None:
        height, width = source.shape[:2]
        self.size, self.reach = size, max(height / size.height, width / size.width, 1.0)
        edit, first = _floats(edited), _floats(source)
        self.soft_edit, self.soft_first = _soften(edit, size), _soften(first, size)
        self.gain = _local_gain(first - self.soft_first, edit - self.soft_edit, 4 * self.reach)
        self.added = edit - self.soft_edit - self.gain * (first - self.soft_first)
        self.untouched = _alike(edit, first, 2 * self.reach)
        self.follows = Follows()

    def at(self, made: Floats, now: Floats, soft_now: Floats, inside: npt.NDArray[np.bool_], places: Floats) -> Guess:
        """Moved to a frame: what the model drew there, the source (sharp, soft), the region, and where its pixels lie in this picture."""
        was = sample(self.soft_first, places)
        light = _light(soft_now, was, 8 * self.reach)
        moved = sample(self.soft_edit, places) * light
        proven = np.exp(-((_away(was * light, soft_now, 2 * self.reach) / PROVEN) ** 2))
        edited = 1 - _column(sample(self.untouched, places))
        some = (slice(None, None, max(1, int(self.reach))),) * 2  # the evidence is soft: a pixel of the model's is enough
        rivals = (sample(self.soft_edit, camera_places(places, ~inside)[some]), soft_now[some])
        trust = self.follows.update(made[some], moved[some], rivals, (inside[..., None] * edited * proven)[some])
        limit = NEAR[0] + (NEAR[1] * (1 - edited) + NEAR[2] * edited * trust) * proven
        share = (1 - edited * (1 - trust)) / (1 + (_away(made, moved, 8 * self.reach) / limit) ** 4)
        return Guess(moved, sample(self.gain, places) * (now - soft_now) + sample(self.added, places), edited, share, proven)


def add_detail(
    generated: Iterable[torch.Tensor], source: torch.Tensor, pictures: Mapping[int, torch.Tensor], region: torch.Tensor, size: Size
) -> Iterator[torch.Tensor]:
    """The `generated` frames `[H, W, 3]` uint8, enlarged from the model's frame `size`, with what is known restored, one by one.

    `source` `[T, H, W, 3]`, the edited `pictures` `[H, W, 3]` by frame (0 among them) and the edit `region` `[T, H, W]` bool are the same
    window at full resolution. Between two pictures both are asked, the nearer one more.
    """
    reach = max(source.shape[1] / size.height, source.shape[2] / size.width, 1.0)
    paths = _paths(source, {number: Picture(picture, source[number], size) for number, picture in sorted(pictures.items())})
    for frame, before, inside, near in zip(generated, source, region.numpy(), paths, strict=True):
        made, now = _floats(frame), _floats(before)
        soft_now = _soften(now, size)
        guess = _agree([(picture.at(made, now, soft_now, inside, places), weight) for picture, places, weight in near])
        made += guess.share * (guess.moved - made)
        made += _alike(made, guess.moved, 2 * reach) * guess.detail
        made += _alike(_soften(made, size), soft_now, 3 * reach) * (1 - guess.edited) * (now - made)
        made += _uncovered(now, guess, 24 * reach) * (now - made)
        yield torch.from_numpy(made.round().clip(0, 255).astype(np.uint8))


def _uncovered(now: Floats, guess: Guess, reach: float) -> Floats:
    """`[H, W, 1]`: 1 where the source shows something new that looks like what was left alone around it, and not like what was edited.

    New is what no edited picture shows (unproven flow). Around means `reach` pixels; looks are normal distributions of colour.
    """
    chances = []
    for weight in (guess.proven * (1 - guess.edited), guess.proven * guess.edited):
        total = _column(_blur(weight, reach)) + 1e-3
        mean = _blur(weight * now, reach) / total
        spread = np.maximum(_blur(weight * now * now, reach) / total - mean * mean, 0) + 64
        chances.append(np.log(total) - 0.5 * ((now - mean) ** 2 / spread + np.log(spread)).sum(-1, keepdims=True))
    return np.asarray((1 - guess.proven) / (1 + np.exp((chances[1] - chances[0]).clip(-30, 30))), np.float32)


def _paths(source: torch.Tensor, pictures: Mapping[int, Picture]) -> Iterator[list[tuple[Picture, Floats, float]]]:
    """For each frame the pictures before and behind it, where its pixels lie in them, and how near they are (1 at the picture itself)."""
    numbers = list(pictures)
    for start, end in zip(numbers, [*numbers[1:], None], strict=True):
        count = len(source) - start if end is None else end - start
        # The way back is made in the wrong order, so it has to be kept: as motion, at half the bytes.
        back = [] if end is None else [_packed(places) for places in places_along(source, range(end, start, -1))]
        for step, places in enumerate(places_along(source, range(start, start + count))):
            found = [(pictures[start], places, 1.0 if end is None else 1 - step / count)]
            if end is not None and step:
                found.append((pictures[end], grid(*places.shape[:2]) + back[count - step].astype(np.float32), step / count))
            yield found


def _packed(places: Floats) -> npt.NDArray[np.float16]:
    return (places - grid(*places.shape[:2])).astype(np.float16)


def _agree(guesses: Sequence[tuple[Guess, float]]) -> Guess:
    """One guess from several, each weighed by how near and how believable it is."""
    if len(guesses) == 1:
        return guesses[0][0]
    weights = [near * guess.share + 1e-3 for guess, near in guesses]
    total = sum(weights)
    mixed = [sum(w * getattr(g, part.name) for w, (g, _) in zip(weights, guesses, strict=True)) / total for part in fields(Guess)]
    return Guess(*mixed)


class Follows:
    """Whether the edit follows the source's motion, from what the model drew so far; later frames count more.

    Where the moved edit differs from a rival (the edited picture, moved with the camera only; the unedited source), the model drew
    nearer to one of them.
    """

    FADE = 0.6
    """What a frame's evidence still counts one frame later."""

    APART = 15.0
    """Levels from which the moved edit and a rival count as different."""

    ODDS = (2.5, 1.2)
    """How many times further off (root mean square) than each rival the moved edit may be at even odds: flow beats a still picture unless
    it is clearly wrong."""

    def __init__(self) -> None:
        self._evidence = np.full((2, 2), 1e-3)

    def update(self, made: Floats, moved: Floats, rivals: tuple[Floats, Floats], weight: Floats) -> float:
        """Trust in [0, 1] after one more frame; pictures are `[H, W, 3]`, `weight` `[H, W, 1]`."""
        self._evidence *= self.FADE
        missed = np.square(made - moved).mean(-1, keepdims=True)
        for rival, row in zip(rivals, self._evidence, strict=True):
            counts = weight * (np.square(moved - rival).mean(-1, keepdims=True) > self.APART**2)
            row += (counts * missed).mean(), (counts * np.square(made - rival).mean(-1, keepdims=True)).mean()
        ratio = np.sqrt(self._evidence[:, 0] / self._evidence[:, 1]) / self.ODDS
        return float(np.prod(1 / (1 + ratio**8)))


def camera_places(places: Floats, outside: npt.NDArray[np.bool_]) -> Floats:
    """Where pixels would lie if all moved as what is `outside` `[H, W]` does: `places` `[H, W, 2]` by one similarity transform."""
    here = grid(*places.shape[:2])
    known = np.flatnonzero(outside)[:: max(1, int(outside.sum()) // 2000)]
    if len(known) < 16:
        return here
    now, then = (np.ascontiguousarray(points.reshape(-1, 2)[known]) for points in (here, places))
    matrix, _ = cv2.estimateAffinePartial2D(now, then, ransacReprojThreshold=max(1.0, max(outside.shape) / 256))
    return here if matrix is None else np.asarray(here @ matrix[:, :2].T + matrix[:, 2], np.float32)


def _light(now: Floats, was: Floats, reach: float) -> Floats:
    """`[H, W, 1]`: how many times brighter the surroundings are now than they were, within LIGHT."""
    grey = (np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32) for picture in (now, was))
    brighter, before = (_blur(picture, reach)[..., None] for picture in grey)
    return np.asarray(((brighter + 8) / (before + 8)).clip(1 / LIGHT, LIGHT), np.float32)


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
    """1 where two pictures agree, 0 where they differ, `[H, W, 1]`."""
    return np.asarray(((ALIKE[1] - _away(left, right, reach)) / (ALIKE[1] - ALIKE[0])).clip(0, 1), np.float32)


def _away(left: Floats, right: Floats, reach: float) -> Floats:
    """Levels between two pictures in the channel where they differ most, over `reach` pixels so that fine grain does not count."""
    red, green, blue = cv2.split(np.abs(_blur(left - right, reach)))
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.float32)[..., None]


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
