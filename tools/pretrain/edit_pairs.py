"""Clips with their true edits, for training: rendered objects whose paint or outline changes, and film whose colours or detail do.

The truth never depends on estimated motion: rendered objects move by formula, and on film the edit is a function of the film's own pixels
in each frame (or the film is the edit, and a poorer copy of it the source). The scenes that judge the method share no code with this file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from film import draw_film
from scenes import RenderedObject, camera_path, camera_view
from textures import Array, palette, texture

Colours = Callable[[Array], Array]


@dataclass(frozen=True)
class EditPair:
    """`source` and `truth` `[T, H, W, 3]` uint8, the `region` `[T, H, W]` bool that a person would mark, and what kind of edit it is."""

    kind: str
    source: Array
    truth: Array
    region: Array


@dataclass
class Stage:
    """What is drawn: the ground (a picture or a film clip), the camera's path, objects from back to front, light and shutter."""

    ground: Array
    camera: Array
    objects: list[RenderedObject]
    light: float = 0.0
    blur: int = 1
    speed_curve: float = 1.0
    noise: float = 0.0
    extra: dict[int, list[Sticker]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sticker:
    """A patch fixed to an object's canvas: `skin` `[S, S, 3]` and `alpha` `[S, S]`, drawn over the object and beyond its outline."""

    skin: Array
    alpha: Array


def draw_colours(rng: np.random.Generator) -> Colours:
    """A random change of colours as a function of pixels `[..., 3]` in [0, 1]; the kind that people make."""
    matrix = np.eye(3)
    if rng.random() < 0.5:
        angle = rng.uniform(0.6, 5.7)
        k = np.ones((3, 3)) / 3
        cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
        matrix = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * k
    elif rng.random() < 0.7:
        tint = palette(rng, 1)[0]
        grey = np.array([0.3, 0.59, 0.11])
        matrix = (tint / max(0.2, float(tint @ grey)))[:, None] * grey[None]
        matrix = matrix + rng.uniform(0, 0.3) * (np.eye(3) - matrix)
    else:
        matrix = np.eye(3)[rng.permutation(3)] * rng.uniform(0.5, 1.3, 3)[:, None]
    gain, shift, gamma = rng.uniform(0.7, 1.25), rng.uniform(-0.12, 0.12), rng.uniform(0.7, 1.5)
    if rng.random() < 0.1:
        gain, shift = -gain, 1 - shift
    return lambda p: np.clip(np.clip(gain * (p @ matrix.T.astype(np.float32)) + shift, 0, 1) ** gamma, 0, 1).astype(np.float32)


def near_colour(rng: np.random.Generator, picture: Array) -> Callable[[Array], Array]:
    """A soft range around a colour that `picture` has, as weights `[...]` of pixels: how people select a thing by its colour."""
    seed = picture[tuple(int(rng.integers(n)) for n in picture.shape[:2])]
    width, soft = rng.uniform(0.1, 0.28), rng.uniform(0.03, 0.1)

    def weigh(p: Array) -> Array:
        chroma = p - p.mean(-1, keepdims=True)
        away = np.linalg.norm(chroma - (seed - seed.mean()), axis=-1) + 0.35 * np.abs(p.mean(-1) - seed.mean())
        return np.clip((width + soft - away) / soft, 0, 1).astype(np.float32)

    return weigh


# --- rendered ------------------------------------------------------------------------------------------------------------------


def draw_stage(rng: np.random.Generator, folder: Path, num_frames: int, side: int) -> Stage:
    """A random stage for frames of `side` pixels."""
    speed = float(rng.choice([0.15, 0.4, 0.4, 0.8, 1.2]))
    on_film = rng.random() < 0.35
    ground = draw_film(rng, folder, num_frames, side) if on_film else texture(rng, side * 2, photo=0.75)
    camera = np.zeros(4) if on_film else camera_path(rng, speed)
    objects = [RenderedObject(rng, speed) for _ in range(rng.choice([1, 1, 2, 2, 3]))]
    return Stage(
        ground,
        camera,
        objects,
        light=float(rng.normal(0, 0.25)) if rng.random() < 0.25 else 0.0,
        blur=int(rng.choice([1, 1, 1, 4])),
        speed_curve=float(np.exp(rng.normal(0, 0.35))),
        noise=float(rng.uniform(0, 0.015)) if rng.random() < 0.4 else 0.0,
    )


def draw_frames(stage: Stage, num_frames: int, side: int, number: int) -> tuple[Array, Array]:
    """Frames `[T, H, W, 3]` in [0, 1] and how much of object `number`, its stickers included, is in sight `[T, H, W]`."""
    frames, shown = [], []
    for index in range(num_frames):
        moments = index / (num_frames - 1) + (np.arange(stage.blur) / stage.blur - 0.5) * 0.8 / num_frames * (stage.blur > 1)
        drawn = [_draw(stage, float(np.clip(m, 0, 1)), index, side, number) for m in moments]
        frames.append(np.mean([d[0] for d in drawn], 0))
        shown.append(np.max([d[1] for d in drawn], 0))
    return np.stack(frames), np.stack(shown)


def _draw(stage: Stage, moment: float, index: int, side: int, number: int) -> tuple[Array, Array]:
    time, big = moment**stage.speed_curve, side * 2
    if stage.ground.ndim == 4:
        frame = cv2.resize(stage.ground[index], (big, big), interpolation=cv2.INTER_LINEAR)
    else:
        view = camera_view(stage.camera, time, len(stage.ground), big, big)
        frame = cv2.warpAffine(
            stage.ground, view, (big, big), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
        )
    shown = np.zeros((big, big), np.float32)
    for position, thing in enumerate(stage.objects):
        matrix = thing.matrix(time, big, big)
        layers = [thing.layer(time), *((s.skin, s.alpha) for s in stage.extra.get(position, []))]
        for skin, alpha in layers:
            opacity = cv2.warpPerspective(alpha, matrix, (big, big), flags=cv2.INTER_LINEAR)
            colour = cv2.warpPerspective(skin, matrix, (big, big), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
            frame = frame + (colour - frame) * opacity[..., None]
            shown = np.maximum(shown, opacity) if position == number else shown * (1 - opacity)
    frame = np.clip(frame * (1 + stage.light * time), 0, 1)
    return tuple(cv2.resize(each, (side, side), interpolation=cv2.INTER_AREA) for each in (frame, shown))  # type: ignore[return-value]


def change_paint(rng: np.random.Generator, thing: RenderedObject, kind: str) -> RenderedObject:
    """A copy that moves alike, with other colours or another texture."""
    edited = copy.copy(thing)
    if kind == "recolour":
        colours = draw_colours(rng)
        part = near_colour(rng, thing.skin)(thing.skin)[..., None] if rng.random() < 0.35 else 1.0
        edited.skin = thing.skin + (colours(thing.skin) - thing.skin) * part
    else:
        skin = texture(rng, len(thing.skin), photo=0.5)
        light = thing.skin.mean(-1, keepdims=True) if rng.random() < 0.3 else None
        edited.skin = skin if light is None else np.clip(skin * (0.4 + 1.2 * light), 0, 1).astype(np.float32)
    return edited


def make_alike(rng: np.random.Generator, stage: Stage, number: int) -> None:
    """Give what stands around an object its colours, so that colour alone does not tell what an edit changes."""
    skin = stage.objects[number].skin
    for other in stage.objects:
        if other is not stage.objects[number]:
            other.skin = np.ascontiguousarray(np.rot90(skin, int(rng.integers(1, 4))))
    if stage.ground.ndim == 3 and rng.random() < 0.6:
        side = len(stage.ground)
        painted = cv2.resize(np.ascontiguousarray(skin[::-1]), (side, side), interpolation=cv2.INTER_LINEAR)
        share = rng.uniform(0.4, 0.9) * (texture(rng, side).mean(-1, keepdims=True) > 0.5)
        stage.ground = np.asarray(stage.ground + (painted - stage.ground) * share, np.float32)


def draw_sticker(rng: np.random.Generator, side: int, outside: bool) -> Sticker:
    """A patch of some texture: on the object, or partly beside it as worn things are."""
    alpha, skin = np.zeros((side, side), np.float32), texture(rng, side, photo=0.4)
    reach = 0.34 if outside else 0.16
    centre = side * (0.5 + rng.uniform(-reach, reach, 2))
    axes = side * rng.uniform(0.07, 0.22, 2)
    if rng.random() < 0.5:
        cv2.ellipse(alpha, tuple(int(c) for c in centre), tuple(int(a) for a in axes), rng.uniform(0, 180), 0, 360, 1.0, -1, cv2.LINE_AA)
    else:
        box = cv2.boxPoints(((float(centre[0]), float(centre[1])), (float(2 * axes[0]), float(2 * axes[1])), float(rng.uniform(0, 90))))
        cv2.fillPoly(alpha, [np.round(box).astype(np.int32)], 1.0, cv2.LINE_AA)
    return Sticker(skin, alpha)


def add_to_ground(rng: np.random.Generator, ground: Array) -> Array:
    """The background `[S, S, 3]`, or film of it `[T, H, W, 3]`, with something that stands in it and moves as the camera makes it move."""
    height, width = ground.shape[-3:-1]
    sticker = draw_sticker(rng, max(height, width), True)
    alpha = sticker.alpha[:height, :width, None]
    return np.asarray(ground + (sticker.skin[:height, :width] - ground) * alpha, np.float32)


def draw_rendered(rng: np.random.Generator, folder: Path, num_frames: int, side: int) -> EditPair:
    """A rendered pair: recolour, retexture, label, worn thing, replacement, removal, something added to the background, or a new thing."""
    stage = draw_stage(rng, folder, num_frames, side)
    kinds = ["recolour", "retexture", "label", "worn", "replacement", "removal", "addition", "added thing"]
    kind = str(rng.choice(kinds, p=[0.14, 0.14, 0.14, 0.16, 0.16, 0.06, 0.12, 0.08]))
    number = int(rng.integers(len(stage.objects)))
    thing = stage.objects[number]
    if kind in ("recolour", "retexture") and rng.random() < 0.4:
        make_alike(rng, stage, number)
    edited = copy.copy(stage)
    if kind in ("recolour", "retexture"):
        edited.objects = [change_paint(rng, t, kind) if i == number else t for i, t in enumerate(stage.objects)]
    elif kind in ("label", "worn"):
        edited.extra = {number: [draw_sticker(rng, len(thing.skin), kind == "worn") for _ in range(rng.integers(1, 3))]}
    elif kind == "replacement":
        other = change_paint(rng, thing, "retexture")
        fresh = RenderedObject(rng, 0.3)
        other.outline, other.figure = fresh.outline, fresh.figure
        edited.objects = [other if i == number else t for i, t in enumerate(stage.objects)]
    elif kind == "addition":
        edited.ground = add_to_ground(rng, stage.ground)
    else:
        hidden = copy.copy(thing)
        hidden.size = 1e-3
        edited.objects = [hidden if i == number else t for i, t in enumerate(stage.objects)]
    if kind == "added thing":  # One that was removed, the other way round.
        stage, edited = edited, stage
    (source, before), (truth, after) = (draw_frames(s, num_frames, side, number) for s in (stage, edited))
    if stage.noise:
        grain = rng.normal(0, stage.noise, source.shape).astype(np.float32)
        source, truth = source + grain, truth + grain
    # What a sticker changes is smaller than its object; a person marks either.
    changed = np.maximum(before, after) > 0.02
    if kind == "addition" or (kind in ("label", "worn") and rng.random() < 0.7):
        changed = np.abs(source - truth).max(-1) > 0.02
    return EditPair(kind, _bytes(source), _bytes(truth), changed)


# --- film ----------------------------------------------------------------------------------------------------------------------


def degrade(rng: np.random.Generator, clip: Array) -> Array:
    """A poorer copy of a clip from which it can't be computed back: flattened, blurred, fewer tones, less colour."""
    out = clip
    if rng.random() < 0.7:
        size = int(rng.choice([3, 5, 7, 9]))
        out = np.stack([cv2.bilateralFilter(f, size, 0.25, size / 2) if size < 7 else cv2.GaussianBlur(f, (size, size), 0) for f in out])
    if rng.random() < 0.5:
        levels = int(rng.integers(3, 8))
        out = np.round(out * levels) / levels
    if rng.random() < 0.6:
        grey = out.mean(-1, keepdims=True)
        out = grey + (out - grey) * rng.uniform(0, 0.4)
    if rng.random() < 0.5:
        out = draw_colours(rng)(out.astype(np.float32))
    return np.asarray(out, np.float32)


def draw_filmed(rng: np.random.Generator, folder: Path, num_frames: int, side: int) -> EditPair:
    """A pair on film: colours of a part or of all, or a look with more in it than the source shows."""
    clip = draw_film(rng, folder, num_frames, side)
    kind = str(rng.choice(["film recolour", "film style", "film detail"], p=[0.4, 0.15, 0.45]))
    if kind == "film style":
        colours = draw_colours(rng)
        return EditPair(kind, _bytes(clip), _bytes(colours(clip)), np.ones(clip.shape[:3], bool))
    if kind == "film recolour":
        for _ in range(6):
            weight = near_colour(rng, clip[0])(clip)
            if 0.03 < weight[0].mean() < 0.6:
                break
        source, other = clip, draw_colours(rng)(clip)
    else:
        weight = near_colour(rng, clip[0])(clip) if rng.random() < 0.4 else np.ones(clip.shape[:3], np.float32)
        if weight[0].mean() < 0.03:
            weight = np.ones_like(weight)
        source, other = clip, degrade(rng, clip)
    mixed = source + (other - source) * weight[..., None]
    region = weight > 0.05
    # The poorer copy is the source; with colours alone either may be.
    if kind == "film detail" or rng.random() < 0.3:
        return EditPair(kind, _bytes(mixed), _bytes(source), region)
    return EditPair(kind, _bytes(source), _bytes(mixed), region)


def _bytes(clip: Array) -> Array:
    return np.round(np.clip(clip, 0, 1) * 255).astype(np.uint8)


def mark_region(rng: np.random.Generator, changed: Array) -> Array:
    """The region `[T, H, W]` bool that a person would give for what changes: close to it, a loose box, or everything."""
    kind, side = rng.random(), changed.shape[1]
    if kind < 0.06:
        return np.ones_like(changed)
    if kind < 0.45:
        reach = int(rng.integers(1, side // 12)) * 2 + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
        return np.stack([cv2.dilate(f.astype(np.uint8), kernel) > 0 for f in changed])
    out, box = np.zeros_like(changed), None
    margin = rng.uniform(0.02, 0.2, 4) * side * np.array([-1, -1, 1, 1])
    for frame, shown in zip(out, changed, strict=True):
        y, x = np.nonzero(shown)
        if len(x):
            box = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) + margin
        if box is not None and len(x):
            left, top, right, bottom = np.clip(box, 0, side).astype(int)
            frame[top:bottom, left:right] = True
    return out


def draw_pair(rng: np.random.Generator, folder: Path, num_frames: int = 25, side: int = 128) -> EditPair:
    """Any pair in which something changes in frame 0 and stays in sight for some frames."""
    while True:
        draw = draw_filmed if rng.random() < 0.25 else draw_rendered
        pair = draw(rng, folder, num_frames, side)
        away = np.abs(pair.source.astype(np.int16) - pair.truth).max(-1)
        if (away[0] > 20).mean() > 0.004 and pair.region[0].any():
            return EditPair(pair.kind, pair.source, pair.truth, mark_region(rng, pair.region))
