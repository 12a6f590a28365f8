"""Scenes with ground truth: a source clip, the same clip truly edited, and the mask of what differs.

Drawn from formulas (distance functions and sums of waves), with no code or picture shared with the scenes the embedded model was
pretrained on, so that no scene here was ever trained on. Coordinates: the frame's shorter side is 1, (0, 0) its centre.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from lora_edit.types import EditMask, Float64Array, Size

SignedDistance = Callable[[Float64Array, Float64Array, float], Float64Array]
"""Signed distance (negative inside) of local coordinates u, v at time 0..1; the object's radius is about 1."""
Texture = Callable[[Float64Array, Float64Array, float], Float64Array]
"""Colours `[..., 3]` in [0, 1] of local coordinates at a time."""


@dataclass(frozen=True)
class SceneObject:
    """An object: where it is (x, y, radius, angle) at a time in [0, 1], its outline and its paint."""

    pose: Callable[[float], tuple[float, float, float, float]]
    signed_distance: SignedDistance
    texture: Texture


@dataclass(frozen=True)
class Scene:
    """`things` are drawn in order over `ground`; thing number `edited` becomes `edit` in the true edit. `exposure` > 0 blurs motion."""

    name: str
    background: Texture
    objects: tuple[SceneObject, ...]
    edited_index: int
    edited_object: SceneObject
    camera: Callable[[float], tuple[float, float]] = lambda time: (0.0, 0.0)
    light: Callable[[float], float] = lambda time: 1.0
    exposure: float = 0.0


@dataclass(frozen=True)
class TrueEdit:
    """Frames `[T, H, W, 3]` uint8 of source and true edit, and the tight mask of the object before and after."""

    name: str
    source: torch.Tensor
    truth: torch.Tensor
    mask: EditMask


# --- paints -------------------------------------------------------------------------------------------------------------------


def sample_colour(rng: np.random.Generator) -> Float64Array:
    """A random colour that is neither black nor white."""
    return rng.uniform(0.08, 0.92, 3)


def _mix(weight: Float64Array, first: Float64Array, second: Float64Array) -> Float64Array:
    return first + (second - first) * weight[..., None]


def make_flat_texture(rng: np.random.Generator) -> Texture:
    """One colour, shaded toward one side."""
    base, slope = sample_colour(rng), rng.uniform(-0.2, 0.2)
    return lambda u, v, time: np.clip(base + slope * u[..., None], 0, 1)


def make_striped_texture(rng: np.random.Generator) -> Texture:
    """Two colours in soft stripes at an angle."""
    first, second, angle, rate = sample_colour(rng), sample_colour(rng), rng.uniform(0, np.pi), rng.uniform(4, 8)
    return lambda u, v, time: _mix(0.5 + 0.5 * np.tanh(4 * np.sin(rate * (u * np.cos(angle) + v * np.sin(angle)))), first, second)


def make_quadrant_texture(rng: np.random.Generator) -> Texture:
    """Four colours, one a quadrant: shows rotation."""
    colours = [sample_colour(rng) for _ in range(4)]

    def paint(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
        right, low = 0.5 + 0.5 * np.tanh(12 * u), 0.5 + 0.5 * np.tanh(12 * v)
        return _mix(low, _mix(right, colours[0], colours[1]), _mix(right, colours[2], colours[3]))

    return paint


def make_ring_texture(rng: np.random.Generator) -> Texture:
    """Rings of two colours around the centre."""
    first, second, rate = sample_colour(rng), sample_colour(rng), rng.uniform(5, 9)
    return lambda u, v, time: _mix(0.5 + 0.5 * np.tanh(3 * np.sin(rate * np.hypot(u, v))), first, second)


def make_rotating_ball_texture(rng: np.random.Generator, turns: float) -> Texture:
    """A ball's surface that turns about the vertical axis: two halves of different colour and a spot; hidden sides come to sight."""
    front, back, spot = sample_colour(rng), sample_colour(rng), sample_colour(rng)

    def paint(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
        longitude = np.arcsin(np.clip(u / np.sqrt(np.maximum(1e-3, 1 - np.minimum(v * v, 0.99))), -1, 1)) + 2 * np.pi * turns * time
        surface = _mix(0.5 + 0.5 * np.tanh(6 * np.cos(longitude)), back, front)
        return _mix(np.exp(-((np.sin(longitude / 2) * 3) ** 2) - (v * 3) ** 2), surface, spot)

    return paint


def make_wave_texture(rng: np.random.Generator, count: int = 7) -> Texture:
    """A smooth random field in three or so colours, for backgrounds."""
    base, rates, phases = sample_colour(rng), rng.normal(0, 5, (count, 2)), rng.uniform(0, 2 * np.pi, count)
    weights = rng.normal(0, 0.32 / np.sqrt(count), (count, 3))

    def paint(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
        field = sum(np.sin(r[0] * u + r[1] * v + p)[..., None] * w for r, p, w in zip(rates, phases, weights, strict=True))
        return np.clip(base + field, 0, 1)

    return paint


def make_tile_texture(rng: np.random.Generator) -> Texture:
    """A floor of soft-edged tiles over a smooth field."""
    under, rate, tint = make_wave_texture(rng, 4), rng.uniform(8, 14), rng.uniform(-0.18, 0.18, 3)
    return lambda u, v, time: np.clip(under(u, v, time) + np.tanh(3 * np.sin(rate * u) * np.sin(rate * v))[..., None] * tint, 0, 1)


# --- outlines -----------------------------------------------------------------------------------------------------------------


def disc_distance(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
    """A circle."""
    return np.hypot(u, v) - 1


def rounded_box_distance(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
    """A rounded rectangle."""
    return np.hypot(np.maximum(np.abs(u) - 0.6, 0), np.maximum(np.abs(v) - 0.75, 0)) - 0.2


def star_distance(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
    """A rounded star with five points."""
    return np.hypot(u, v) - (0.78 + 0.22 * np.cos(5 * np.arctan2(v, u)))


def cross_distance(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
    """A thick plus sign."""
    return np.minimum(np.maximum(np.abs(u) - 0.38, np.abs(v) - 1), np.maximum(np.abs(u) - 1, np.abs(v) - 0.38))


def flower_distance(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
    """A bud whose petals open over the clip."""
    petals = 0.45 + 0.3 * time + (0.05 + 0.22 * time) * np.cos(6 * np.arctan2(v, u))
    return np.hypot(u, v) - petals


def blob_distance(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
    """A blob that is squeezed and stretched."""
    squeeze = 1 + 0.35 * np.sin(2 * np.pi * time)
    return np.hypot(u * squeeze, v / squeeze) - 0.9


def empty_distance(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
    """Nothing: what is not there yet, or no more."""
    return np.full_like(u, 9.0)


SIGNED_DISTANCES: tuple[SignedDistance, ...] = (disc_distance, rounded_box_distance, star_distance, cross_distance)


# --- drawing ------------------------------------------------------------------------------------------------------------------


def _build_grid(size: Size, supersample: int) -> tuple[Float64Array, Float64Array]:
    scale = min(size.height, size.width)
    y, x = np.mgrid[0 : size.height * supersample, 0 : size.width * supersample].astype(float)
    return ((x + 0.5) / supersample - size.width / 2) / scale, ((y + 0.5) / supersample - size.height / 2) / scale


def _compute_coverage(
    scene_object: SceneObject, x: Float64Array, y: Float64Array, time: float, softness: float
) -> tuple[Float64Array, Float64Array, Float64Array]:
    left, top, radius, angle = scene_object.pose(time)
    du, dv = (x - left) / radius, (y - top) / radius
    u, v = du * np.cos(angle) + dv * np.sin(angle), dv * np.cos(angle) - du * np.sin(angle)
    return np.clip(0.5 - scene_object.signed_distance(u, v, time) * radius / softness, 0, 1), u, v


def _draw_frame(scene: Scene, size: Size, time: float) -> tuple[Float64Array, Float64Array]:
    """Frame `[H, W, 3]` in [0, 1] and visible share of the edited thing `[H, W]`."""
    x, y = _build_grid(size, 2)
    pan_x, pan_y = scene.camera(time)
    x, y = x + pan_x, y + pan_y
    frame, shown = scene.background(x, y, time), np.zeros_like(x)
    for number, thing in enumerate(scene.objects):
        cover, u, v = _compute_coverage(thing, x, y, time, 1.0 / min(size.height, size.width))
        frame = frame + (thing.texture(u, v, time) - frame) * cover[..., None]
        shown = np.maximum(shown, cover) if number == scene.edited_index else shown * (1 - cover)
    frame = frame * scene.light(time)
    return _halve(frame), _halve(shown[..., None])[..., 0]


def _halve(image: Float64Array) -> Float64Array:
    height, width, channels = image.shape
    return image.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3))


def render_scene(scene: Scene, size: Size, num_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames `[T, H, W, 3]` uint8 and mask `[T, H, W]` bool of the edited thing."""
    frames, masks = [], []
    for index in range(num_frames):
        time = index / max(1, num_frames - 1)
        moments = [time] if not scene.exposure else list(time + np.linspace(-0.5, 0.5, 5) * scene.exposure / num_frames)
        drawn = [_draw_frame(scene, size, moment) for moment in moments]
        frames.append(np.round(np.clip(np.mean([d[0] for d in drawn], 0), 0, 1) * 255).astype(np.uint8))
        masks.append(np.max([d[1] for d in drawn], 0) > 0.02)
    return torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(masks))


def render_true_edit(scene: Scene, size: Size, num_frames: int) -> TrueEdit:
    """Source, true edit, and the union of both objects' masks."""
    source, before = render_scene(scene, size, num_frames)
    things = tuple(scene.edited_object if i == scene.edited_index else t for i, t in enumerate(scene.objects))
    truth, after = render_scene(replace(scene, objects=things), size, num_frames)
    return TrueEdit(scene.name, source, truth, EditMask(before | after))
