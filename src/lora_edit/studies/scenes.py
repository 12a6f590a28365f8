"""Scenes with ground truth: a source clip, its true edit, and the mask of the difference.

Scenes are drawn from formulas (distance functions and sums of waves). They share no code or picture with the scenes of the embedded model's
pretraining, so the model was trained on none of them. Coordinates: the shorter side of the frame is 1, (0, 0) its centre.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from lora_edit.types import EditMask, Float64Array, Size

SignedDistance = Callable[[Float64Array, Float64Array, float], Float64Array]
"""Signed distance (negative inside) of local coordinates u, v at a time in [0, 1]; the radius of the object is about 1."""
Texture = Callable[[Float64Array, Float64Array, float], Float64Array]
"""Colours `[..., 3]` in [0, 1] of local coordinates u, v at a time in [0, 1]."""


@dataclass(frozen=True)
class SceneObject:
    """An object: its pose (x, y, radius, angle) at a time in [0, 1], its outline and its texture."""

    pose: Callable[[float], tuple[float, float, float, float]]
    signed_distance: SignedDistance
    texture: Texture


@dataclass(frozen=True)
class Scene:
    """A scene: `objects` are drawn in order over `background`.

    In the true edit, `edited_object` replaces the object with the index `edited_index`. `exposure` > 0 adds motion blur.
    """

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
    """The frames `[T, H, W, 3]` uint8 of source and true edit, and the tight mask of the object before and after the edit."""

    name: str
    source: torch.Tensor
    truth: torch.Tensor
    mask: EditMask


# --- textures -----------------------------------------------------------------------------------------------------------------


def sample_colour(rng: np.random.Generator) -> Float64Array:
    """Draw a random colour that is neither black nor white."""
    return rng.uniform(0.08, 0.92, 3)


def _mix(weight: Float64Array, first: Float64Array, second: Float64Array) -> Float64Array:
    return first + (second - first) * weight[..., None]


def make_flat_texture(rng: np.random.Generator) -> Texture:
    """Make a texture of one colour, shaded toward one side."""
    base, slope = sample_colour(rng), rng.uniform(-0.2, 0.2)
    return lambda u, v, time: np.clip(base + slope * u[..., None], 0, 1)


def make_striped_texture(rng: np.random.Generator) -> Texture:
    """Make a texture of soft stripes in two colours at an angle."""
    first, second, angle, rate = sample_colour(rng), sample_colour(rng), rng.uniform(0, np.pi), rng.uniform(4, 8)
    return lambda u, v, time: _mix(0.5 + 0.5 * np.tanh(4 * np.sin(rate * (u * np.cos(angle) + v * np.sin(angle)))), first, second)


def make_quadrant_texture(rng: np.random.Generator) -> Texture:
    """Make a texture of four colours, one per quadrant, which makes rotation visible."""
    colours = [sample_colour(rng) for _ in range(4)]

    def texture(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
        right, bottom = 0.5 + 0.5 * np.tanh(12 * u), 0.5 + 0.5 * np.tanh(12 * v)
        return _mix(bottom, _mix(right, colours[0], colours[1]), _mix(right, colours[2], colours[3]))

    return texture


def make_ring_texture(rng: np.random.Generator) -> Texture:
    """Make a texture of rings in two colours around the centre."""
    first, second, rate = sample_colour(rng), sample_colour(rng), rng.uniform(5, 9)
    return lambda u, v, time: _mix(0.5 + 0.5 * np.tanh(3 * np.sin(rate * np.hypot(u, v))), first, second)


def make_rotating_ball_texture(rng: np.random.Generator, turns: float) -> Texture:
    """Make the surface of a ball that rotates about the vertical axis: two halves of different colour, and a spot.

    Hidden sides become visible.
    """
    front, back, spot = sample_colour(rng), sample_colour(rng), sample_colour(rng)

    def texture(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
        longitude = np.arcsin(np.clip(u / np.sqrt(np.maximum(1e-3, 1 - np.minimum(v * v, 0.99))), -1, 1)) + 2 * np.pi * turns * time
        surface = _mix(0.5 + 0.5 * np.tanh(6 * np.cos(longitude)), back, front)
        return _mix(np.exp(-((np.sin(longitude / 2) * 3) ** 2) - (v * 3) ** 2), surface, spot)

    return texture


def make_wave_texture(rng: np.random.Generator, count: int = 7) -> Texture:
    """Make a smooth random field in about three colours, for backgrounds."""
    base, rates, phases = sample_colour(rng), rng.normal(0, 5, (count, 2)), rng.uniform(0, 2 * np.pi, count)
    weights = rng.normal(0, 0.32 / np.sqrt(count), (count, 3))

    def texture(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
        field = sum(np.sin(r[0] * u + r[1] * v + p)[..., None] * w for r, p, w in zip(rates, phases, weights, strict=True))
        return np.clip(base + field, 0, 1)

    return texture


def make_tile_texture(rng: np.random.Generator) -> Texture:
    """Make a floor of soft-edged tiles over a smooth field."""
    field, rate, tint = make_wave_texture(rng, 4), rng.uniform(8, 14), rng.uniform(-0.18, 0.18, 3)
    return lambda u, v, time: np.clip(field(u, v, time) + np.tanh(3 * np.sin(rate * u) * np.sin(rate * v))[..., None] * tint, 0, 1)


# --- outlines -----------------------------------------------------------------------------------------------------------------


def disc_distance(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
    """Compute the distance to a circle."""
    return np.hypot(u, v) - 1


def rounded_box_distance(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
    """Compute the distance to a rounded rectangle."""
    return np.hypot(np.maximum(np.abs(u) - 0.6, 0), np.maximum(np.abs(v) - 0.75, 0)) - 0.2


def star_distance(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
    """Compute the distance to a rounded star with five points."""
    return np.hypot(u, v) - (0.78 + 0.22 * np.cos(5 * np.arctan2(v, u)))


def cross_distance(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
    """Compute the distance to a thick plus sign."""
    return np.minimum(np.maximum(np.abs(u) - 0.38, np.abs(v) - 1), np.maximum(np.abs(u) - 1, np.abs(v) - 0.38))


def flower_distance(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
    """Compute the distance to a bud whose petals open over the clip."""
    petals = 0.45 + 0.3 * time + (0.05 + 0.22 * time) * np.cos(6 * np.arctan2(v, u))
    return np.hypot(u, v) - petals


def blob_distance(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
    """Compute the distance to a blob that deforms over the clip."""
    squeeze = 1 + 0.35 * np.sin(2 * np.pi * time)
    return np.hypot(u * squeeze, v / squeeze) - 0.9


def empty_distance(u: Float64Array, v: Float64Array, time: float) -> Float64Array:
    """Return a distance far outside, for an object that is absent."""
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
    """The coverage of an object in [0, 1], and its local coordinates u and v, each `[H, W]`."""
    center_x, center_y, radius, angle = scene_object.pose(time)
    du, dv = (x - center_x) / radius, (y - center_y) / radius
    u, v = du * np.cos(angle) + dv * np.sin(angle), dv * np.cos(angle) - du * np.sin(angle)
    return np.clip(0.5 - scene_object.signed_distance(u, v, time) * radius / softness, 0, 1), u, v


def _draw_frame(scene: Scene, size: Size, time: float) -> tuple[Float64Array, Float64Array]:
    """Draw a frame `[H, W, 3]` in [0, 1] and the visible coverage of the edited object `[H, W]`."""
    x, y = _build_grid(size, 2)
    pan_x, pan_y = scene.camera(time)
    x, y = x + pan_x, y + pan_y
    frame, visible = scene.background(x, y, time), np.zeros_like(x)
    for index, scene_object in enumerate(scene.objects):
        coverage, u, v = _compute_coverage(scene_object, x, y, time, 1.0 / min(size.height, size.width))
        frame = frame + (scene_object.texture(u, v, time) - frame) * coverage[..., None]
        visible = np.maximum(visible, coverage) if index == scene.edited_index else visible * (1 - coverage)
    frame = frame * scene.light(time)
    return _halve(frame), _halve(visible[..., None])[..., 0]


def _halve(image: Float64Array) -> Float64Array:
    height, width, channels = image.shape
    return image.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3))


def render_scene(scene: Scene, size: Size, num_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Render the frames `[T, H, W, 3]` uint8 and the mask `[T, H, W]` bool of the edited object."""
    frames, masks = [], []
    for index in range(num_frames):
        time = index / max(1, num_frames - 1)
        times = [time] if not scene.exposure else list(time + np.linspace(-0.5, 0.5, 5) * scene.exposure / num_frames)
        exposures = [_draw_frame(scene, size, each) for each in times]
        frames.append(np.round(np.clip(np.mean([colours for colours, _ in exposures], 0), 0, 1) * 255).astype(np.uint8))
        masks.append(np.max([coverage for _, coverage in exposures], 0) > 0.02)
    return torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(masks))


def render_true_edit(scene: Scene, size: Size, num_frames: int) -> TrueEdit:
    """Render the source, the true edit, and the union of both objects' masks."""
    source, before = render_scene(scene, size, num_frames)
    objects = tuple(scene.edited_object if index == scene.edited_index else each for index, each in enumerate(scene.objects))
    truth, after = render_scene(replace(scene, objects=objects), size, num_frames)
    return TrueEdit(scene.name, source, truth, EditMask(before | after))
