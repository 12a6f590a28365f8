"""Moving scenes for pretraining: textured objects over a textured background, with true boxes of each object.

These scenes are for training only. The scenes that judge the method live in `lora_edit.studies` and share no code with
this file, so that nothing is judged on what was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from textures import Array, palette, texture

_CANVAS = 96
_DISTANCE = 3.0
"""Of the eye from an object, in halves of its canvas."""


@dataclass(frozen=True)
class Scene:
    """A rendered clip: `frames` [T, H, W, 3] uint8 and `boxes` [N, T, 4] (left, top, right, bottom; pixels, float)."""

    frames: Array
    boxes: Array


def _silhouette(rng: np.random.Generator) -> Array:
    """A random outline on the canvas as points [K, 2] in [-1, 1]."""
    kind = rng.integers(5)
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    if kind == 0:
        radius = 1 / np.maximum(np.abs(np.cos(angles)), np.abs(np.sin(angles))) * 0.75
    elif kind == 1:
        radius = np.full_like(angles, 0.9)
    else:
        radius = 0.7 + sum(rng.normal(0, 0.28 / k) * np.cos(k * angles + rng.uniform(0, 6.3)) for k in range(1, rng.integers(3, 7)))
    points = np.stack([np.cos(angles) * rng.uniform(0.5, 1), np.sin(angles)], -1) * np.clip(radius, 0.25, 1.0)[:, None]
    return points.astype(np.float32)


def _limbs(rng: np.random.Generator, phase: float, plan: Array) -> list[Array]:
    """Parts of an articulated figure at one moment: a trunk, a head and swinging limbs, each a polygon in [-1, 1]."""
    parts = []
    for base_x, base_y, length, width, rest, swing, shift in plan:
        angle = rest + swing * np.sin(phase + shift)
        tip = np.array([base_x + length * np.sin(angle), base_y + length * np.cos(angle)])
        base = np.array([base_x, base_y])
        side = np.array([np.cos(angle), -np.sin(angle)]) * width
        parts.append(np.array([base - side, base + side, tip + side * 0.8, tip - side * 0.8], np.float32))
    return parts


def _figure_plan(rng: np.random.Generator) -> Array:
    swing = rng.uniform(0.2, 0.9)
    rows = [
        (0, -0.45, 0.75, 0.22, 0, 0.05, 0),
        (0, -0.85, 0.35, 0.16, 0, 0.1, 1),
        (-0.2, -0.4, 0.6, 0.09, -0.2, swing, 0),
        (0.2, -0.4, 0.6, 0.09, 0.2, swing, np.pi),
        (-0.12, 0.25, 0.65, 0.1, 0, swing * 0.8, np.pi),
        (0.12, 0.25, 0.65, 0.1, 0, swing * 0.8, 0),
    ]
    return np.array(rows) * rng.uniform(0.9, 1.1, (6, 7))


class RenderedObject:
    """One textured thing with its own path, spin, growth, deformation and texture scroll over time in [0, 1]."""

    def __init__(self, rng: np.random.Generator, speed: float) -> None:
        self.rng = rng
        skin = texture(rng, _CANVAS * 2, photo=0.45)
        for _ in range(rng.integers(0, 4)):
            centre = tuple(int(v) for v in rng.integers(20, _CANVAS * 2 - 20, 2))
            colour = tuple(float(c) for c in palette(rng, 1)[0])
            if rng.random() < 0.5:
                cv2.circle(skin, centre, int(rng.integers(6, 36)), colour, -1, cv2.LINE_AA)
            else:
                cv2.rectangle(skin, centre, tuple(c + int(rng.integers(8, 60)) for c in centre), colour, -1)
        self.skin = skin
        self.figure = _figure_plan(rng) if rng.random() < 0.3 else None
        self.outline = _silhouette(rng)
        self.size = rng.uniform(0.16, 0.6)
        self.centre = rng.uniform(0.2, 0.8, 2)
        self.velocity = rng.normal(0, 0.3, 2) * speed
        self.sway = rng.normal(0, 0.1, 2) * speed
        self.sway_rate = rng.uniform(2, 7, 2)
        self.spin = rng.normal(0, 1.0) * speed if rng.random() < 0.5 else rng.normal(0, 0.15)
        self.angle = rng.uniform(-0.4, 0.4)
        self.growth = rng.normal(0, 0.35) * speed
        self.deform = rng.normal(0, 0.15, (2, 2)) if rng.random() < 0.4 else np.zeros((2, 2))
        self.scroll = rng.normal(0, 40) * speed if rng.random() < 0.25 else 0.0
        self.phase = rng.uniform(0, 6.3)
        self.pace = rng.uniform(2, 9) * speed
        self.shade = rng.uniform(0, 0.5)
        self.turn = rng.normal(0, 0.8, 2) * speed if rng.random() < 0.4 else np.zeros(2)

    def layer(self, time: float) -> tuple[Array, Array]:
        """Colour [2C, 2C, 3] and opacity [2C, 2C] on the object's own canvas at `time`."""
        side = _CANVAS * 2
        alpha = np.zeros((side, side), np.float32)
        if self.figure is None:
            points = self.outline * (1 + 0.3 * np.sin(self.phase + self.pace * time) * self.deform[0, 0])
            points = points + self.outline[:, ::-1] * self.deform[1] * np.sin(self.pace * time + self.phase)
            parts = [points]
        else:
            parts = _limbs(self.rng, self.phase + self.pace * time, self.figure)
        for part in parts:
            cv2.fillPoly(alpha, [np.round((part * 0.9 + 1) * side / 2).astype(np.int32)], 1.0, cv2.LINE_AA)
        skin = np.roll(self.skin, int(self.scroll * time), axis=1) if self.scroll else self.skin
        if self.shade > 0.1:
            ramp = np.linspace(1 - self.shade, 1 + self.shade, side, dtype=np.float32)
            skin = np.clip(skin * ramp[None, :, None], 0, 1)
        return skin, alpha

    def matrix(self, time: float, height: int, width: int) -> Array:
        """Projective map from the object's canvas to the frame, [3, 3]."""
        place = self.centre + self.velocity * time + self.sway * np.sin(self.sway_rate * time + self.phase)
        scale = self.size * max(0.3, 1 + self.growth * time) * min(height, width) / _CANVAS
        angle = self.angle + self.spin * time
        cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
        x, y = place[0] * width, place[1] * height
        placed = np.array([[cos, -sin, x], [sin, cos, y], [0, 0, 1]])
        return np.asarray(placed @ self._turned(time), np.float32)

    def _turned(self, time: float) -> Array:
        """The canvas, centred, as it is seen when it turns about its upright and its level axis: in perspective."""
        about = np.clip(self.turn * time, -1.1, 1.1)
        (cx, cy), (sx, sy) = np.cos(about), np.sin(about) / (_DISTANCE * _CANVAS)
        centred = np.array([[1, 0, -_CANVAS], [0, 1, -_CANVAS], [0, 0, 1]])
        return np.asarray(np.array([[cx, 0, 0], [0, cy, 0], [sx, sy, 1]]) @ centred)


def camera_path(rng: np.random.Generator, speed: float) -> Array:
    """Pan x, pan y, zoom and roll over the clip; half of the cameras stand still."""
    return np.zeros(4) if rng.random() < 0.5 else rng.normal(0, 1, 4) * np.array([0.15, 0.1, 0.12, 0.08]) * speed


def camera_view(camera: Array, time: float, side: int, height: int, width: int) -> Array:
    """Affine map from frame to ground, [2, 3], at `time`."""
    zoom = (1.25 + camera[2] * time) * side / max(height, width) / 1.6
    cos, sin = np.cos(camera[3] * time) * zoom, np.sin(camera[3] * time) * zoom
    x, y = side * (0.5 + 0.3 * camera[0] * time), side * (0.5 + 0.3 * camera[1] * time)
    return np.array([[cos, -sin, x - cos * width / 2 + sin * height / 2], [sin, cos, y - sin * width / 2 - cos * height / 2]], np.float32)


def _bounds(alpha: Array) -> Array:
    rows, columns = np.where(alpha.max(1) > 0.3)[0], np.where(alpha.max(0) > 0.3)[0]
    if not len(rows) or not len(columns):
        return np.full(4, np.nan)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)


def draw_times(rng: np.random.Generator, num_frames: int) -> Array:
    """Frame times in [0, 1]; a third of the clips jump from frame 0 to a later stretch, as anchored windows do."""
    if num_frames == 1:
        return np.zeros(1)
    stretch = rng.uniform(0.25, 1.0)
    start = rng.uniform(0, 1 - stretch) if rng.random() < 0.35 else 0.0
    later = start + stretch * np.arange(1, num_frames) / (num_frames - 1)
    return np.concatenate([[0.0], later])


def render(rng: np.random.Generator, num_frames: int, height: int, width: int, supersample: int = 2) -> Scene:
    """Draw one clip at `supersample` times its size and shrink it, so that edges are smooth as in filmed video."""
    times = draw_times(rng, num_frames)
    speed = rng.choice([0.1, 0.3, 0.3, 0.6, 1.0])
    big_h, big_w, side = height * supersample, width * supersample, max(height, width) * 2 * supersample
    ground, camera = texture(rng, side, photo=0.65), camera_path(rng, speed)
    things = [RenderedObject(rng, speed) for _ in range(rng.choice([1, 1, 2, 2, 3]))]
    light = rng.normal(0, 0.2) if rng.random() < 0.2 else 0.0
    soften = rng.random() < 0.25
    frames, boxes = [], np.full((len(things), num_frames, 4), np.nan)
    for index, time in enumerate(times):
        view = camera_view(camera, time, side, big_h, big_w)
        frame = cv2.warpAffine(
            ground, view, (big_w, big_h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
        )
        for number, thing in enumerate(things):
            skin, alpha = thing.layer(time)
            matrix = thing.matrix(time, big_h, big_w)
            colour = cv2.warpPerspective(skin, matrix, (big_w, big_h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
            opacity = cv2.warpPerspective(alpha, matrix, (big_w, big_h), flags=cv2.INTER_LINEAR)
            frame = frame + (colour - frame) * opacity[..., None]
            boxes[number, index] = _bounds(opacity) / supersample
        if supersample > 1:
            frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        if soften:
            frame = cv2.GaussianBlur(frame, (3, 3), 0.7)
        frames.append(np.clip(frame * (1 + light * time), 0, 1))
    return Scene(np.round(np.stack(frames) * 255).astype(np.uint8), boxes)
