"""Drawing of the real scenes: motion, layers, edits, and frames of source and true edit with the mask of their differences.

World coordinates: the frame's shorter side is 1, (0, 0) its centre; times go from 0 to 1 over the clip. A layer is a function of the time
that returns premultiplied RGBA `[H * SUPER, W * SUPER, 4]`; frames are averaged over `SUPER` by `SUPER` samples per pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lora_edit.types import Float32Array

SUPER = 3
Rng = np.random.Generator
Layer = Callable[[float], Float32Array]
Affine = Callable[[float], Float32Array]
"""From an object's own coordinates (its longer side is 1) to the world, `[3, 3]`."""
Bend = Callable[[Float32Array, Float32Array, float], tuple[Float32Array, Float32Array, Float32Array]]
"""Own coordinates and time to coordinates on the undeformed picture and a factor of light and shade."""


@dataclass(frozen=True)
class Stage:
    """The frame: `width`, `height` in pixels, and the camera, `[3, 3]` from the world to the view at a time."""

    width: int = 192
    height: int = 192
    camera: Affine = lambda time: np.eye(3, dtype=np.float32)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the layers."""
        return self.width * SUPER, self.height * SUPER

    def to_canvas(self, time: float) -> Float32Array:
        """Transform from the world to the layers' pixels, `[3, 3]` (pixel centres at integers)."""
        scale = SUPER * min(self.width, self.height)
        lens = np.array([[scale, 0, self.size[0] / 2 - 0.5], [0, scale, self.size[1] / 2 - 0.5], [0, 0, 1]])
        return (lens @ self.camera(time)).astype(np.float32)

    def local(self, pose: Affine, time: float) -> tuple[Float32Array, Float32Array, float]:
        """Compute every pixel's position in an object's own coordinates, and the pixels per unit of these."""
        matrix = self.to_canvas(time) @ pose(time)
        back = np.linalg.inv(matrix)
        x, y = np.meshgrid(np.arange(self.size[0], dtype=np.float32), np.arange(self.size[1], dtype=np.float32))
        return (
            (back[0, 0] * x + back[0, 1] * y + back[0, 2]).astype(np.float32),
            (back[1, 0] * x + back[1, 1] * y + back[1, 2]).astype(np.float32),
            float(np.sqrt(abs(np.linalg.det(matrix[:2, :2])))),
        )


# --- motion -------------------------------------------------------------------------------------------------------------------


def affine(x: float, y: float, scale: float, angle: float, stretch: float = 1.0) -> Float32Array:
    """Build a transform of move, turn (radians) and scale; `stretch` scales the object's own x first."""
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    return np.array([[c * stretch, -s, x], [s * stretch, c, y], [0, 0, 1]], np.float32)


def gait(rng: Rng) -> Callable[[float], float]:
    """Draw an uneven progress from 0 to 1 over the clip."""
    strength, phase = rng.uniform(0.3, 0.75), rng.uniform(0, 2 * np.pi)
    return lambda time: time + strength / (2 * np.pi) * (np.sin(2 * np.pi * time + phase) - np.sin(phase))


def sway(rng: Rng, size: float) -> Callable[[float], float]:
    """Draw a smooth irregular swing of about `size`, 0 at the beginning."""
    waves = [(rng.uniform(0.5, 1.0), rng.uniform(0.4, 1.0), rng.uniform(0, 6.28)), (0.35, rng.uniform(1.3, 2.1), rng.uniform(0, 6.28))]
    return lambda time: size * sum(a * (np.sin(2 * np.pi * f * time + p) - np.sin(p)) for a, f, p in waves)


def path(rng: Rng, size: float, reach: float = 0.25, spin: float = 0.4, growth: float = 0.15) -> Affine:
    """Draw a path through the middle of the frame: forward by `reach` on both sides of it, swinging, turning and growing irregularly."""
    heading, pace = rng.uniform(0, 2 * np.pi), gait(rng)
    across, turn, grow = sway(rng, 0.05), sway(rng, spin * rng.choice([-1, 1])), sway(rng, growth)
    dx, dy = np.cos(heading) * reach, np.sin(heading) * reach * 0.7

    def pose(time: float) -> Float32Array:
        along, side = 2 * pace(time) - 1, across(time)
        x, y = dx * along - dy / reach * side, dy * along + dx / reach * side
        return affine(x, y, size * (1 + grow(time)), turn(time))

    return pose


def camera(rng: Rng, pan: float = 0.12, zoom: float = 0.12, roll: float = 0.04) -> Affine:
    """Draw a hand-held camera that pans, zooms and rolls."""
    heading, pace = rng.uniform(0, 2 * np.pi), gait(rng)
    x, y, turn, nearer = sway(rng, 0.02), sway(rng, 0.02), sway(rng, roll), zoom * rng.choice([-1, 1])

    def view(time: float) -> Float32Array:
        along = pace(time) - 0.5
        scale = float(np.exp(nearer * along))
        return affine(np.cos(heading) * pan * along + x(time), np.sin(heading) * pan * along + y(time), scale, turn(time))

    return view


# --- layers -------------------------------------------------------------------------------------------------------------------


def premultiplied(picture: Float32Array) -> Float32Array:
    """Convert straight RGBA (or opaque RGB) to premultiplied RGBA."""
    if picture.shape[2] == 3:
        picture = np.dstack([picture, np.ones(picture.shape[:2], np.float32)])
    return np.dstack([picture[..., :3] * picture[..., 3:], picture[..., 3]]).astype(np.float32)


def fitted(picture: Float32Array, pixels: float) -> Float32Array:
    """Limit the picture's longer side to `pixels`, so that sampling it does not alias."""
    scale = pixels / max(picture.shape[:2])
    if scale >= 1:
        return picture
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.float32)


def unit(picture: Float32Array) -> Float32Array:
    """Build the transform from pixels of an object's picture to its own coordinates, inverted: from coordinates to pixels."""
    height, width = picture.shape[:2]
    longest = max(height, width)
    return np.array([[1 / longest, 0, -(width - 1) / 2 / longest], [0, 1 / longest, -(height - 1) / 2 / longest], [0, 0, 1]], np.float32)


def flat(stage: Stage, picture: Float32Array, pose: Affine, border: int = cv2.BORDER_CONSTANT) -> Layer:
    """Draw a picture (RGB or RGBA) that moves as a plane."""
    largest = max(float(np.sqrt(abs(np.linalg.det((stage.to_canvas(t) @ pose(t))[:2, :2])))) for t in np.linspace(0, 1, 9))
    ready = premultiplied(fitted(picture, largest))

    def draw(time: float) -> Float32Array:
        matrix = stage.to_canvas(time) @ pose(time) @ unit(ready)
        return np.asarray(cv2.warpAffine(ready, matrix[:2], stage.size, flags=cv2.INTER_LINEAR, borderMode=border), np.float32)

    return draw


def ground(stage: Stage, picture: Float32Array, width: float = 2.2) -> Layer:
    """Draw a photograph as background, `width` units wide (at least 1.8 high), fixed in the world."""
    height, columns = picture.shape[:2]
    longest = max(width, 1.8 * columns / height) if columns >= height else max(width, 1.8) * height / columns
    return flat(stage, picture, lambda time: affine(0, 0, longest, 0), cv2.BORDER_REFLECT)


def film(stage: Stage, frames: Sequence[Float32Array]) -> Layer:
    """Draw a film shot as background, frame by frame."""
    ready = [
        premultiplied(np.asarray(cv2.resize(frame, stage.size, interpolation=cv2.INTER_CUBIC).clip(0, 1), np.float32)) for frame in frames
    ]
    return lambda time: ready[min(len(ready) - 1, max(0, round(time * (len(ready) - 1))))]


def sampled(picture: Float32Array, u: Float32Array, v: Float32Array, border: int = cv2.BORDER_REFLECT) -> Float32Array:
    """Sample the picture at u, v in [0, 1] of its width and height."""
    height, width = picture.shape[:2]
    return np.asarray(cv2.remap(picture, u * width - 0.5, v * height - 0.5, cv2.INTER_LINEAR, borderMode=border), np.float32)


def bent(stage: Stage, picture: Float32Array, pose: Affine, bend: Bend) -> Layer:
    """Draw a picture deformed by `bend`."""
    largest = max(stage.local(pose, t)[2] for t in (0.0, 0.5, 1.0))
    ready = np.pad(premultiplied(fitted(picture, largest)), ((2, 2), (2, 2), (0, 0)))
    height, width = ready.shape[:2]

    def draw(time: float) -> Float32Array:
        x, y, _ = stage.local(pose, time)
        u, v, shade = bend(x, y, time)
        longest = max(height, width)
        drawn = sampled(ready, u * longest / width + 0.5, v * longest / height + 0.5, cv2.BORDER_CONSTANT)
        drawn[..., :3] = np.minimum(drawn[..., :3] * shade[..., None], drawn[..., 3:])
        return drawn

    return draw


def over(below: Float32Array, above: Float32Array) -> Float32Array:
    """Composite premultiplied `above` over `below`."""
    return above + below * (1 - above[..., 3:])


# --- solids: new sides come to sight ------------------------------------------------------------------------------------------


def _lit(colours: Float32Array, cover: Float32Array, light: Float32Array) -> Float32Array:
    shaded = np.clip(colours[..., :3] * light[..., None], 0, 1)
    return np.dstack([shaded * cover[..., None], cover]).astype(np.float32)


def around(picture: Float32Array) -> Float32Array:
    """Join the picture and its mirror image, so that it closes around a solid."""
    return np.ascontiguousarray(np.hstack([picture, picture[:, ::-1]]))


def sphere(stage: Stage, skin: Float32Array, pose: Affine, turn: Callable[[float], tuple[float, float]]) -> Layer:
    """Draw a ball of diameter 1; `turn` gives its turns about the vertical and the horizontal axis in radians."""
    skin = fitted(skin, 1.6 * np.pi * stage.local(pose, 0.5)[2])

    def draw(time: float) -> Float32Array:
        x, y, pixels = stage.local(pose, time)
        x, y = 2 * x, 2 * y
        radius = np.hypot(x, y)
        z = np.sqrt(np.maximum(1 - radius**2, 0))
        yaw, pitch = turn(time)
        y2, z2 = y * np.cos(pitch) - z * np.sin(pitch), y * np.sin(pitch) + z * np.cos(pitch)
        longitude = np.arctan2(x, z2) + yaw
        latitude = np.arcsin(np.clip(y2 / np.maximum(radius, 1), -1, 1))
        colours = sampled(
            skin, (longitude / (2 * np.pi) % 1).astype(np.float32), (latitude / np.pi + 0.5).astype(np.float32), cv2.BORDER_WRAP
        )
        light = 0.45 + 0.65 * np.clip(-0.45 * x - 0.55 * y + 0.7 * z, 0, 1)
        return _lit(colours, np.clip((1 - radius) * pixels / 2 + 0.5, 0, 1), light)

    return draw


def cylinder(stage: Stage, skin: Float32Array, lid: Float32Array, pose: Affine, turn: Callable[[float], tuple[float, float]]) -> Layer:
    """Draw a can, 1 high, seen a little from above: the label goes around it, the lid's colour is `lid` [3]."""
    skin, half, radius = fitted(skin, 2.4 * stage.local(pose, 0.5)[2]), 0.42, 0.36

    def draw(time: float) -> Float32Array:
        x, y, pixels = stage.local(pose, time)
        yaw, pitch = turn(time)
        tilt = radius * (0.22 + 0.5 * abs(np.sin(pitch)))
        depth = np.sqrt(np.maximum(1 - (x / radius) ** 2, 0))
        level = (y - tilt * depth + half) / (2 * half)
        angle = np.arcsin(np.clip(x / radius, -1, 1)) + yaw
        colours = sampled(
            skin, (angle / (2 * np.pi) % 1).astype(np.float32), np.clip(level, 0.002, 0.998).astype(np.float32), cv2.BORDER_WRAP
        )
        light = 0.4 + 0.7 * np.clip(0.75 * depth - 0.5 * x / radius, 0, 1)
        top = np.clip((1 - np.hypot(x / radius, (y + half) / tilt)) * tilt * pixels + 0.5, 0, 1)
        side = (
            np.clip((radius - np.abs(x)) * pixels + 0.5, 0, 1)
            * np.clip(level * pixels + 0.5, 0, 1)
            * np.clip((1 - level) * pixels + 0.5, 0, 1)
        )
        body = _lit(colours, side.astype(np.float32), light)
        return over(body, _lit(np.broadcast_to(lid.astype(np.float32), (*x.shape, 3)), top.astype(np.float32), 0.95 - 0.3 * x))

    return draw


def cuboid(
    stage: Stage, sides: Sequence[Float32Array], pose: Affine, turn: Callable[[float], tuple[float, float]], shape: Float32Array
) -> Layer:
    """Draw a box with six pictures on its sides, of edge lengths `shape` [3], in perspective."""
    ready = [premultiplied(fitted(side, 1.5 * stage.local(pose, 0.5)[2])) for side in sides]
    corners = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], float)
    spins = [_spin(angle, 0) for angle in (0, np.pi / 2, np.pi, -np.pi / 2)] + [_spin(0, np.pi / 2), _spin(0, -np.pi / 2)]

    def draw(time: float) -> Float32Array:
        drawn = np.zeros((stage.size[1], stage.size[0], 4), np.float32)
        matrix, turned = stage.to_canvas(time) @ pose(time), _spin(*turn(time))
        for picture, spin in zip(ready, spins, strict=True):
            points = (corners @ spin.T) * shape / 2 @ turned.T
            normal = np.array([0, 0, 1.0]) @ spin.T @ turned.T
            middle = points.mean(0)
            if normal @ (np.array([0, 0, 3.0]) - middle) <= 0:
                continue
            seen = points[:, :2] * (3 / (3 - points[:, 2:]))
            placed = seen @ matrix[:2, :2].T + matrix[:2, 2]
            height, width = picture.shape[:2]
            corner_pixels = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]], np.float32)
            warp = cv2.getPerspectiveTransform(corner_pixels, placed.astype(np.float32))
            face = cv2.warpPerspective(picture, warp, stage.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
            face[..., :3] *= float(0.5 + 0.55 * max(0.0, normal @ np.array([-0.35, -0.5, 0.79])))
            drawn = over(drawn, face)
        return drawn

    return draw


def _spin(yaw: float, pitch: float) -> Float32Array:
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    return (about_x @ about_y).astype(np.float32)


# --- edits of pictures --------------------------------------------------------------------------------------------------------


def luminance(colours: Float32Array) -> Float32Array:
    """Compute Rec. 601 luma."""
    return np.asarray(colours[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def hue_turned(colours: Float32Array, degrees: float, saturation: float = 1.0, value: float = 1.0) -> Float32Array:
    """Rotate the hue in HSV."""
    hsv = cv2.cvtColor(np.ascontiguousarray(colours[..., :3], np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + degrees) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
    hsv[..., 2] = np.clip(hsv[..., 2] * value, 0, 1)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)


def painted(colours: Float32Array, paint: Sequence[float], gloss: float = 0.25) -> Float32Array:
    """Coat in one colour: shadows stay dark, midtones take the paint, highlights stay light."""
    light = luminance(colours)
    middle = float(np.median(light)) + 1e-3
    ratio = (light / middle)[..., None]
    body = np.asarray(paint, np.float32) * np.minimum(ratio, 1.6) ** 0.85
    shine = np.clip((light[..., None] - 0.75) / 0.25, 0, 1) * gloss
    return np.clip(body + (1 - body) * shine, 0, 1).astype(np.float32)


def gradient_mapped(colours: Float32Array, stops: Sequence[Sequence[float]]) -> Float32Array:
    """Map luminance to a scale of colours, smoothly."""
    light = luminance(colours) * (len(stops) - 1)
    return np.dstack([np.interp(light, range(len(stops)), [stop[c] for stop in stops]) for c in range(3)]).astype(np.float32)


def shaded_like(colours: Float32Array, material: Float32Array) -> Float32Array:
    """Replace `colours` `[h, w, 3]` by `material` (any size), keeping their coarse light and shade."""
    height, width = colours.shape[:2]
    light = cv2.GaussianBlur(luminance(colours), (0, 0), max(height, width) / 40)
    shade = np.clip(light / (np.median(light) + 1e-3), 0.35, 1.5) ** 0.8
    scale = max(height / material.shape[0], width / material.shape[1])
    large = cv2.resize(material, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    return np.clip(large[top : top + height, left : left + width] * shade[..., None], 0, 1).astype(np.float32)


def with_colours(cutout: Float32Array, colours: Float32Array) -> Float32Array:
    """Replace the colours of a cut-out, keeping its outline."""
    return np.dstack([colours[..., :3], cutout[..., 3]]).astype(np.float32)


def pattern(rng: Rng, kind: str, side: int = 500) -> Float32Array:
    """Draw stripes, checks or dots in two strong colours."""
    hue = rng.uniform(0, 360)
    first, second = (vivid(hue + turn, light) for turn, light in ((0, 0.9), (rng.uniform(120, 240), 0.95)))
    if rng.random() < 0.5:
        second = np.array([0.95, 0.93, 0.88], np.float32)
    y, x = np.mgrid[0:side, 0:side] / side
    angle, rate = rng.uniform(-0.6, 0.6), rng.uniform(4, 7)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if kind == "stripes":
        weight = np.sin(2 * np.pi * rate * u)
    elif kind == "checks":
        weight = np.sin(2 * np.pi * rate * u / 1.4) * np.sin(2 * np.pi * rate * v / 1.4) * 2
    else:
        weight = np.cos(2 * np.pi * rate * u) + np.cos(2 * np.pi * rate * v) - 0.7
    share = np.clip(weight * 12 + 0.5, 0, 1)[..., None]
    return (first + (second - first) * share).astype(np.float32)


def vivid(hue: float, value: float = 0.9, saturation: float = 0.85) -> Float32Array:
    """Choose a strong colour `[3]` of this hue in degrees."""
    return np.asarray(cv2.cvtColor(np.array([[[hue % 360, saturation, value]]], np.float32), cv2.COLOR_HSV2RGB)[0, 0], np.float32)


def label(rng: Rng, text: str, side: int = 400) -> Float32Array:
    """Draw a round badge with a word or a number, or a star if the text is empty: RGBA."""
    drawn = np.zeros((side, side, 4), np.float32)
    ink, paper = vivid(rng.uniform(0, 360), 0.75), np.array([0.97, 0.96, 0.92], np.float32)
    centre, line = (side // 2, side // 2), cv2.LINE_AA
    cv2.circle(drawn, centre, side // 2 - 6, (*map(float, ink), 1.0), -1, line)
    cv2.circle(drawn, centre, side // 2 - 30, (*map(float, paper), 1.0), -1, line)
    if text:
        scale, thick = (5.2, 26) if len(text) < 3 else (2.6, 16)
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
        origin = ((side - width) // 2, (side + height) // 2)
        # OpenCV writes into bytes only.
        written = cv2.putText(np.zeros((side, side), np.uint8), text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255.0, thick, line)
        share = written[..., None] / np.float32(255)
        drawn = drawn * (1 - share) + np.array([*ink, 1.0], np.float32) * share
    else:
        angles = -np.pi / 2 + np.arange(10) * np.pi / 5
        radii = np.where(np.arange(10) % 2 == 0, 0.36, 0.16) * side
        points = np.stack([side / 2 + radii * np.cos(angles), side / 2 + radii * np.sin(angles)], -1).astype(np.int32)
        cv2.fillPoly(drawn, [points], (*map(float, ink), 1.0), line)
    return _straight(drawn)


def _straight(drawn: Float32Array) -> Float32Array:
    """Convert OpenCV's drawing over transparent black to straight colours."""
    drawn[..., :3] = np.where(drawn[..., 3:] > 1e-3, drawn[..., :3] / np.maximum(drawn[..., 3:], 1e-3), 0).clip(0, 1)
    return drawn


def garment(rng: Rng, kind: str, side: int = 400) -> Float32Array:
    """Draw a party hat, a crown, sunglasses or a bow tie, RGBA, with a little light and shade."""
    shape = np.zeros((side, side), np.float32)
    outlines = {
        "hat": [[(0.5, 0.02), (0.85, 0.95), (0.5, 1.0), (0.15, 0.95)]],
        "crown": [[(0.05, 0.25), (0.27, 0.55), (0.5, 0.15), (0.73, 0.55), (0.95, 0.25), (0.88, 0.85), (0.12, 0.85)]],
        "sunglasses": [[(0.02, 0.38), (0.46, 0.38), (0.40, 0.64), (0.12, 0.66)], [(0.54, 0.38), (0.98, 0.38), (0.88, 0.66), (0.60, 0.64)],
                       [(0.4, 0.39), (0.6, 0.39), (0.6, 0.45), (0.4, 0.45)]],
        "bow tie": [[(0.5, 0.5), (0.03, 0.25), (0.03, 0.75)], [(0.5, 0.5), (0.97, 0.25), (0.97, 0.75)],
                    [(0.42, 0.4), (0.58, 0.4), (0.58, 0.6), (0.42, 0.6)]],
    }[kind]  # fmt: skip
    for outline in outlines:
        cv2.fillPoly(shape, [(np.array(outline) * side).astype(np.int32)], 1.0, cv2.LINE_AA)
    if kind == "sunglasses":
        colours = np.broadcast_to(np.array([0.07, 0.06, 0.1], np.float32), (side, side, 3)).copy()
    elif kind == "crown":
        colours = np.broadcast_to(np.array([0.95, 0.75, 0.15], np.float32), (side, side, 3)).copy()
    else:
        colours = pattern(rng, "stripes" if kind == "hat" else "dots", side)
    y, x = np.mgrid[0:side, 0:side] / side
    gleam = np.exp(-(((x - 0.3 - 0.1 * y) / 0.12) ** 2)) * (0.25 if kind != "sunglasses" else 0.5)
    colours = np.clip(colours * (1.05 - 0.35 * x)[..., None] + gleam[..., None] * 0.6, 0, 1)
    if kind == "hat":
        cv2.circle(shape, (side // 2, side // 10), side // 11, 1.0, -1, cv2.LINE_AA)
    return np.dstack([colours, shape]).astype(np.float32)


# --- scenes -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A layer of the source and its replacement in the true edit (None: nothing).

    An `edited` part counts in the mask wherever it is visible; of other parts only pixels that differ do.
    """

    source: Layer | None
    truth: Layer | None
    edited: bool = False


def same(layer: Layer) -> Part:
    """Build a part that the edit leaves unchanged."""
    return Part(layer, layer)


@dataclass(frozen=True)
class Scene:
    """Parts in order over the ground; `light` gives factors `[h, w, 1 or 3]` or `[3]`; `exposure` is the share of a frame's time with
    an open shutter (0: an instant); `noise` is the sensor's standard deviation in grey levels.
    """

    stage: Stage
    parts: tuple[Part, ...]
    light: Callable[[float], Float32Array] | None = None
    exposure: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True)
class Clip:
    """Frames `[T, H, W, 3]` uint8 of source and true edit, and the mask of what differs `[T, H, W]` bool."""

    source: np.ndarray
    truth: np.ndarray
    mask: np.ndarray


def render(scene: Scene, count: int, rng: Rng) -> Clip:
    """Draw both clips and the mask."""
    sources, truths, masks = [], [], []
    for index in range(count):
        time = index / (count - 1)
        moments = [time] if not scene.exposure else list(time + np.linspace(-0.5, 0.5, 9) * scene.exposure / (count - 1))
        drawn = [_draw(scene, moment) for moment in moments]
        source, truth = (_reduced(np.mean([each[side] for each in drawn], 0)) for side in (0, 1))
        shown = _reduced(np.max([each[2] for each in drawn], 0)[..., None])[..., 0]
        grain = rng.normal(0, scene.noise / 255, source.shape) if scene.noise else 0
        sources.append(as_bytes(source + grain))
        truths.append(as_bytes(truth + grain))
        masks.append(closed((shown > 0.02) | (np.abs(source - truth).max(-1) >= 3 / 255)))
    return Clip(np.stack(sources), np.stack(truths), np.stack(masks))


def _draw(scene: Scene, time: float) -> tuple[Float32Array, Float32Array, Float32Array]:
    pair: list[Float32Array] = []
    shown = np.zeros(scene.stage.size[::-1], np.float32)
    drawn = [
        (part.source and part.source(time), None if part.truth is part.source else part.truth and part.truth(time)) for part in scene.parts
    ]
    for side in (0, 1):
        frame, seen = np.zeros((*scene.stage.size[::-1], 4), np.float32), np.zeros(scene.stage.size[::-1], np.float32)
        for part, layers in zip(scene.parts, drawn, strict=True):
            layer = layers[0] if side == 0 or part.truth is part.source else layers[1]
            if layer is None:
                continue
            frame = over(frame, layer)
            seen = np.maximum(seen, layer[..., 3]) if part.edited else seen * (1 - layer[..., 3])
        light = scene.light(time) if scene.light else np.ones(3, np.float32)
        pair.append(np.clip(frame[..., :3] * light, 0, 1))
        shown = np.maximum(shown, seen)
    return pair[0], pair[1], shown


def _reduced(picture: Float32Array) -> Float32Array:
    height, width, channels = picture.shape
    return np.asarray(picture.reshape(height // SUPER, SUPER, width // SUPER, SUPER, channels).mean((1, 3)), np.float32)


def as_bytes(picture: Float32Array) -> np.ndarray:
    """Convert [0, 1] to uint8."""
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def closed(mask: np.ndarray) -> np.ndarray:
    """Close pinholes."""
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).astype(bool)


def recoloured_film(frames: Sequence[Float32Array], change: Callable[[Float32Array], Float32Array], size: tuple[int, int]) -> Clip:
    """Read frames of a film at width and height `size`, and change every pixel by `change`; returns both."""
    sources = [as_bytes(cv2.resize(frame, size, interpolation=cv2.INTER_AREA)) for frame in frames]
    truths = [as_bytes(change(source.astype(np.float32) / 255)) for source in sources]
    masks = [np.abs(s.astype(int) - t).max(-1) >= 3 for s, t in zip(sources, truths, strict=True)]
    tidy = [
        cv2.morphologyEx(closed(mask).astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)).astype(bool) | mask for mask in masks
    ]
    return Clip(np.stack(sources), np.stack(truths), np.stack(tidy))


def keyed(hue: float, width: float, saturation: tuple[float, float], value: tuple[float, float]) -> Callable[[Float32Array], Float32Array]:
    """Compute how much of each pixel has a colour, `[h, w, 1]`: hue within `width` degrees, saturation and value in ranges."""

    def weight(colours: Float32Array) -> Float32Array:
        hsv = cv2.cvtColor(np.ascontiguousarray(colours, np.float32), cv2.COLOR_RGB2HSV)
        away = np.abs((hsv[..., 0] - hue + 180) % 360 - 180)
        near = np.clip((width - away) / (0.3 * width), 0, 1)
        strong = np.clip((hsv[..., 1] - saturation[0]) / (saturation[1] - saturation[0]), 0, 1)
        bright = np.clip((hsv[..., 2] - value[0]) / (value[1] - value[0]), 0, 1)
        product = near * strong * bright
        return (product * product * (3 - 2 * product))[..., None].astype(np.float32)

    return weight
