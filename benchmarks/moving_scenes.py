"""Clips drawn from photographs, with true motion, for `benchmarks/correspondence.py`.

The layers (a background, an object, perhaps a similar second object, perhaps an occluder) each carry a piece of a photograph, move by an
affine pose and may be deformed by travelling waves. The same formulas give the position of every pixel in frame 0 and its visibility
there. Frame times run from 0 to 1; lengths are pixels of the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.types import BoolArray, Float32Array

Pose = Callable[[float], npt.NDArray[np.float64]]
"""The affine map `[2, 3]` from a layer's own coordinates to the frame's at a time."""
Wave = Callable[[Float32Array, float], Float32Array]
"""The displacement `[h, w, 2]` of a layer's own coordinates `[h, w, 2]` at a time."""

SIDE, FRAMES = 256, 25
FINE = 2
"""Texture pixels, and samples for smooth edges, per pixel of the frame along each axis."""

GRAIN = 1.5
"""Standard deviation of the noise of every frame, in levels of 255."""

OBJECT = 1
"""The object's number among the layers; 0 is the background."""


@dataclass(frozen=True)
class Layer:
    """A layer: `texture` `[h, w, 3]` and `alpha` `[h, w]` (0..1) at `FINE` pixels per unit, centred at the origin, and its motion."""

    texture: Float32Array
    alpha: Float32Array
    pose: Pose
    wave: Wave | None = None

    def own(self, positions: Float32Array, time: float) -> Float32Array:
        """Convert the frame's `positions` `[h, w, 2]` to the layer's coordinates `[h, w, 2]`."""
        inverse = cv2.invertAffineTransform(self.pose(time))
        flat = (positions @ inverse[:, :2].T + inverse[:, 2]).astype(np.float32)
        found = flat
        for _ in range(8 if self.wave else 0):
            assert self.wave is not None
            found = flat - self.wave(found, time)
        return found

    def placed(self, own: Float32Array, time: float) -> Float32Array:
        """Convert the layer's coordinates to the frame's."""
        moved = own + self.wave(own, time) if self.wave else own
        matrix = self.pose(time)
        return np.asarray(moved @ matrix[:, :2].T + matrix[:, 2], np.float32)

    def read(self, picture: Float32Array, own: Float32Array, border: int = cv2.BORDER_CONSTANT) -> Float32Array:
        """Sample the texture or the alpha at the layer's coordinates."""
        middle = np.array([picture.shape[1] - 1, picture.shape[0] - 1], np.float32) / 2
        at = own * FINE + middle
        return np.asarray(cv2.remap(picture, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=border), np.float32)


@dataclass(frozen=True)
class Scene:
    """Layers from back to front; the share of a frame's time with an open shutter; the light, a factor per channel."""

    layers: tuple[Layer, ...]
    shutter: float = 0.0
    light: Callable[[float], Float32Array] = lambda time: np.ones(3, np.float32)


@dataclass(frozen=True)
class Truth:
    """A drawn clip: `frames` `[T, H, W, 3]` uint8; `layer` `[T, H, W]`, the layer of each pixel; `positions` `[T, H, W, 2]` of the
    pixels in frame 0; `visible` `[T, H, W]`, whether frame 0 shows them.
    """

    frames: torch.Tensor
    layer: npt.NDArray[np.int64]
    positions: Float32Array
    visible: BoolArray


def draw(scene: Scene, rng: np.random.Generator, num_frames: int = FRAMES, side: int = SIDE) -> Truth:
    """Draw the scene's clip with its true motion."""
    frames, tops, positions, visible = [], [], [], []
    home = _grid(side, 1)
    for number in range(num_frames):
        time = number / max(1, num_frames - 1)
        step = scene.shutter / max(1, num_frames - 1)
        moments = [time + step * share for share in np.linspace(-0.5, 0.5, 9 if step else 1)] if step else [time]
        picture = np.mean([_picture(scene, moment, side) for moment in moments], axis=0)
        noise = rng.normal(0, GRAIN, picture.shape)
        frames.append(np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8))
        top, there = _first_positions(scene, home, time)
        within = ((there >= -0.5) & (there <= side - 0.5)).all(-1)
        tops.append(top)
        positions.append(there)
        visible.append(within & (_top(scene, there, 0.0) == top))
    return Truth(torch.from_numpy(np.stack(frames)), np.stack(tops), np.stack(positions), np.stack(visible))


def _grid(side: int, fine: int) -> Float32Array:
    """Build positions `[side * fine, side * fine, 2]` in pixels of the frame, centres at integers."""
    axis = (np.arange(side * fine) + 0.5) / fine - 0.5
    return np.stack(np.meshgrid(axis, axis), axis=-1).astype(np.float32)


def _picture(scene: Scene, time: float, side: int) -> Float32Array:
    home = _grid(side, FINE)
    picture = np.zeros((*home.shape[:2], 3), np.float32)
    for number, layer in enumerate(scene.layers):
        own = layer.own(home, time)
        alpha = layer.read(layer.alpha, own)[..., None] if number else np.float32(1)
        picture += alpha * (layer.read(layer.texture, own, cv2.BORDER_REFLECT) - picture)
    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small * scene.light(time), np.float32)


def _top(scene: Scene, positions: Float32Array, time: float) -> npt.NDArray[np.int64]:
    """Find the front layer at positions `[h, w, 2]`."""
    top = np.zeros(positions.shape[:2], np.int64)
    for number, layer in enumerate(scene.layers[1:], 1):
        top[layer.read(layer.alpha, layer.own(positions, time)) > 0.5] = number
    return top


def _first_positions(scene: Scene, home: Float32Array, time: float) -> tuple[npt.NDArray[np.int64], Float32Array]:
    top = _top(scene, home, time)
    there = np.zeros_like(home)
    for number, layer in enumerate(scene.layers):
        here = top == number
        there[here] = layer.placed(layer.own(home, time), 0.0)[here]
    return top, there


# --- what layers are made of -----------------------------------------------------------------------------------------------------


class Photos:
    """Crops of the photographs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
        self._read: dict[Path, Float32Array] = {}

    def piece(self, rng: np.random.Generator, side: int, contrast: float = 12.0) -> Float32Array:
        """Crop a random textured square `[side, side, 3]`: its standard deviation is at least `contrast` levels, if one is."""
        best, most = None, -1.0
        for _ in range(12):
            photo = self._photo(self.paths[rng.integers(len(self.paths))])
            room = min(photo.shape[:2])
            span = int(min(room, side * rng.uniform(0.7, 1.6)))
            top, left = (int(rng.integers(0, extent - span + 1)) for extent in photo.shape[:2])
            found = cv2.resize(photo[top : top + span, left : left + span], (side, side), interpolation=cv2.INTER_AREA)
            grey = found.mean(-1)
            strength = float(np.std(grey - cv2.GaussianBlur(grey, (0, 0), side / 8)))
            if strength > most:
                best, most = found, strength
            if most >= contrast:
                break
        assert best is not None
        return np.asarray(best, np.float32)

    def _photo(self, path: Path) -> Float32Array:
        if path not in self._read:
            whole = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            scale = 1100 / min(whole.shape[:2])
            self._read[path] = cv2.resize(whole, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return self._read[path].astype(np.float32)


def blob(rng: np.random.Generator, radius: float) -> Float32Array:
    """Draw a random silhouette `[h, w]` in 0..1 of about this radius."""
    side = int(2 * radius * 1.5 * FINE)
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) / (radius * FINE)
    kind = rng.integers(3)
    angle = np.arctan2(y, x)
    if kind == 0:
        edge = 1 + sum(rng.uniform(-0.14, 0.14) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 6))
    elif kind == 1:
        edge = 1 / np.sqrt((np.cos(angle) / 1.05) ** 2 + (np.sin(angle) / rng.uniform(0.6, 0.9)) ** 2)
    else:
        a, b = 0.95, rng.uniform(0.55, 0.85)
        edge = 1 / ((np.abs(np.cos(angle)) / a) ** 6 + (np.abs(np.sin(angle)) / b) ** 6) ** (1 / 6)
    return np.clip(0.5 + (edge - np.hypot(x, y)) * radius * FINE, 0, 1).astype(np.float32)


def plain(rng: np.random.Generator, side: int, base: Float32Array) -> Float32Array:
    """Draw one colour with soft shading and hardly any texture, `[side, side, 3]`."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    slope = rng.uniform(-25, 25, 2)
    spots = cv2.GaussianBlur(rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), side / 12)
    shade = slope[0] * x + slope[1] * y + 5 * spots / spots.std()
    return np.asarray(base + shade[..., None], np.float32)


def similarity(x: float, y: float, angle: float = 0.0, scale: float = 1.0) -> npt.NDArray[np.float64]:
    """Build a similarity transform `[2, 3]` of shift, turn (radians) and scale."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y]])


def path(rng: np.random.Generator, speed: float, num_frames: int = FRAMES) -> Callable[[float], tuple[float, float]]:
    """Draw a smooth path within the frame with a mean speed of `speed` pixels a frame: (x, y) at a time."""
    reach = min(70.0, max(10.0, speed * num_frames / 3))
    rates, phases = rng.uniform(0.7, 1.3, 2), rng.uniform(0, 2 * np.pi, 2)
    times = np.linspace(0, 1, 200)

    def at(time: float, pace: float) -> tuple[float, float]:
        x, y = (reach * np.sin(2 * np.pi * pace * rate * time + phase) for rate, phase in zip(rates, phases, strict=True))
        return SIDE / 2 + float(x), SIDE / 2 + float(y)

    way = np.array([at(time, 1.0) for time in times])
    length = float(np.hypot(*np.diff(way, axis=0).T).sum()) / num_frames
    return lambda time: at(time, speed / length)


def travelling(rng: np.random.Generator, height: float) -> Wave:
    """Draw two travelling waves with an amplitude of `height` pixels each."""
    angles, lengths = rng.uniform(0, 2 * np.pi, 2), rng.uniform(35, 60, 2)
    rates, phases = rng.uniform(0.7, 1.6, 2) * rng.choice([-1, 1], 2), rng.uniform(0, 2 * np.pi, 2)

    def wave(own: Float32Array, time: float) -> Float32Array:
        out = np.zeros_like(own)
        for angle, length, rate, phase in zip(angles, lengths, rates, phases, strict=True):
            along = own[..., 0] * np.cos(angle) + own[..., 1] * np.sin(angle)
            size = height * np.sin(2 * np.pi * (along / length + rate * time) + phase)
            out += size[..., None] * np.array([-np.sin(angle), np.cos(angle)], np.float32)
        return out.astype(np.float32)

    return wave


# --- kinds of scene --------------------------------------------------------------------------------------------------------------


def base_scene(rng: np.random.Generator, photos: Photos, speed: float, radius: tuple[float, float] = (26, 40)) -> Scene:
    """Draw an object that moves at `speed` pixels a frame over a still background, turning and growing a little."""
    alpha = blob(rng, rng.uniform(*radius))
    texture = photos.piece(rng, alpha.shape[0], 18)
    way, turn, growth = path(rng, speed), rng.uniform(-0.25, 0.25), rng.uniform(-0.1, 0.1)
    ground_side = 2 * SIDE * FINE
    ground = Layer(photos.piece(rng, ground_side), np.ones((ground_side, ground_side), np.float32), lambda time: similarity(128, 128))
    thing = Layer(texture, alpha, lambda time: similarity(*way(time), turn * time, 1 + growth * time))
    return Scene((ground, thing))


def _with_object(scene: Scene, **changes: object) -> Scene:
    thing = replace(scene.layers[OBJECT], **changes)  # type: ignore[arg-type]
    return replace(scene, layers=(scene.layers[0], thing, *scene.layers[2:]))


def slow(rng: np.random.Generator, photos: Photos) -> Scene:
    """Draw a slow object."""
    return base_scene(rng, photos, rng.uniform(0.8, 2.0))


def fast(rng: np.random.Generator, photos: Photos) -> Scene:
    """Draw an object that moves by its own size within three to five frames."""
    return base_scene(rng, photos, rng.uniform(12, 18), (22, 34))


def deforming(rng: np.random.Generator, photos: Photos) -> Scene:
    """Draw an object deformed by travelling waves."""
    return _with_object(base_scene(rng, photos, rng.uniform(1, 3), (32, 44)), wave=travelling(rng, rng.uniform(2.0, 3.5)))


def rotating(rng: np.random.Generator, photos: Photos) -> Scene:
    """Draw an object that rotates in the picture's plane, by a right angle to a half turn."""
    scene, turn = base_scene(rng, photos, 1.5), rng.uniform(1.6, 3.1) * rng.choice([-1, 1])
    way = path(rng, 1.5)
    return _with_object(scene, pose=lambda time: similarity(*way(time), turn * time))


def scaling(rng: np.random.Generator, photos: Photos) -> Scene:
    """Draw an object that comes nearer, or moves away."""
    scene, last = base_scene(rng, photos, 1.5), rng.choice([rng.uniform(0.5, 0.65), rng.uniform(1.6, 2.0)])
    way = path(rng, 1.5)
    return _with_object(scene, pose=lambda time: similarity(*way(time), 0.2 * time, float(last) ** time))


def blurred(rng: np.random.Generator, photos: Photos) -> Scene:
    """Draw a fast object with the shutter open half of the time."""
    return replace(base_scene(rng, photos, rng.uniform(7, 12)), shutter=0.5)


def lit(rng: np.random.Generator, photos: Photos) -> Scene:
    """Draw light that becomes darker or brighter, changes its colour, and flickers."""
    scene, last, tint = base_scene(rng, photos, rng.uniform(1.5, 4)), rng.choice([0.55, 1.45]), rng.uniform(-0.12, 0.12, 3)
    return replace(
        scene, light=lambda time: ((1 + (last - 1) * time) * (1 + tint * time) * (1 + 0.08 * np.sin(40 * time))).astype(np.float32)
    )


def occluded(rng: np.random.Generator, photos: Photos) -> Scene:
    """Draw an occluder as large as the object that passes in front of it."""
    scene = base_scene(rng, photos, rng.uniform(1.5, 3))
    alpha = blob(rng, rng.uniform(30, 42))
    from_left, middle, angle = rng.choice([-1, 1]), rng.uniform(0.35, 0.65), rng.uniform(-0.6, 0.6)

    def pose(time: float) -> npt.NDArray[np.float64]:
        x, y = scene.layers[OBJECT].pose(middle)[:, 2]
        away = from_left * (time - middle) * rng_span
        return similarity(x + away * np.cos(angle), y + away * np.sin(angle))

    rng_span = rng.uniform(260, 340)
    return replace(scene, layers=(*scene.layers, Layer(photos.piece(rng, alpha.shape[0], 14), alpha, pose)))


def textureless(rng: np.random.Generator, photos: Photos) -> Scene:
    """Draw a plain object on a plain background."""
    scene = base_scene(rng, photos, rng.uniform(2, 5))
    base = rng.uniform(60, 200, 3)
    ground = replace(scene.layers[0], texture=plain(rng, scene.layers[0].texture.shape[0], base))
    away = rng.choice([-1, 1], 3) * rng.uniform(25, 55, 3)
    scene = replace(scene, layers=(ground, *scene.layers[1:]))
    return _with_object(scene, texture=plain(rng, scene.layers[OBJECT].texture.shape[0], np.clip(base + away, 10, 245)))


def panning(rng: np.random.Generator, photos: Photos) -> Scene:
    """Draw a camera that pans and turns a little, with the object moving in another direction."""
    scene = base_scene(rng, photos, rng.uniform(2, 4))
    angle, length, turn = rng.uniform(0, 2 * np.pi), rng.uniform(50, 100), rng.uniform(-0.15, 0.15)

    def pose(time: float) -> npt.NDArray[np.float64]:
        return similarity(128 + length * time * np.cos(angle), 128 + length * time * np.sin(angle), turn * time)

    return replace(scene, layers=(replace(scene.layers[0], pose=pose), *scene.layers[1:]))


def distracted(rng: np.random.Generator, photos: Photos) -> Scene:
    """Draw a second object with the same look that passes behind the first."""
    scene = base_scene(rng, photos, rng.uniform(2, 5))
    thing, middle = scene.layers[OBJECT], rng.uniform(0.3, 0.7)
    away, turn = rng.uniform(110, 150) * np.array([rng.choice([-1, 1]), rng.uniform(-0.6, 0.6)]), rng.uniform(-0.3, 0.3)

    def pose(time: float) -> npt.NDArray[np.float64]:
        x, y = thing.pose(time)[:, 2] + away * (time - middle) * 2
        return similarity(float(x), float(y), turn)

    other = replace(thing, texture=np.ascontiguousarray(thing.texture * 0.97 + 3), pose=pose)
    # The object keeps its number: what passes behind it would be layer 1, so it is drawn in front where they meet only at the rim.
    return replace(scene, layers=(scene.layers[0], thing, other))


KINDS: dict[str, Callable[[np.random.Generator, Photos], Scene]] = {
    "slow": slow,
    "fast": fast,
    "deforming": deforming,
    "rotating": rotating,
    "scaling": scaling,
    "blurred": blurred,
    "lit": lit,
    "occluded": occluded,
    "textureless": textureless,
    "panning": panning,
    "distracted": distracted,
}


def scenes(photos: Photos, kind: str, seeds: Sequence[int]) -> list[Truth]:
    """Yield the drawn clips of one kind."""
    drawn = []
    for seed in seeds:
        rng = np.random.default_rng([list(KINDS).index(kind), seed])
        drawn.append(draw(KINDS[kind](rng, photos), rng))
    return drawn
