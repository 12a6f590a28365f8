"""A second set of scenes with ground truth: `python benchmarks/real_scenes.py --data FOLDER --output FOLDER [--only KIND]`.

Drawn from photographs and film crops under masks of real objects, by code that shares nothing with the formula scenes of
`lora_edit.studies` nor with the embedded model's pretraining. Fifteen kinds, four scenes each: two of the half "seen", to choose by, and
two of the half "unseen", to judge by once the choice is made; the halves share no photograph, shot or object. `FOLDER/NAME/` gets source/,
truth/ and mask/ as PNG; `FOLDER/scenes.jsonl` a line per scene. The same files and seed give the same bytes.

`data` needs photos/ (the photographs of Debian's lomiri-wallpapers), bbb.mp4 (Big Buck Bunny, 1280x720, 24 frames a second), box.mp4 and
cup.mp4 (Debian's opencv-doc) and u2/rembg/u2netp.onnx (U2-Net-p).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from real_scene_drawing import (
    Affine,
    Bend,
    Clip,
    Layer,
    Part,
    Rng,
    Scene,
    Stage,
    affine,
    around,
    bent,
    camera,
    cuboid,
    cylinder,
    film,
    flat,
    gait,
    garment,
    gradient_mapped,
    ground,
    hue_turned,
    keyed,
    label,
    luminance,
    over,
    painted,
    path,
    pattern,
    recoloured_film,
    render,
    same,
    shaded_like,
    sphere,
    sway,
    vivid,
    with_colours,
)
from real_scene_sources import BUNNY, HALVES, Material, Shot, Sources

from lora_edit.types import Float32Array

FRAMES = 25
STREAM = 41
"""Scenes are drawn from the seed sequence [seed, STREAM, kind, half, number]."""
WIDE = (256, 192)


@dataclass
class Draft:
    """The inputs of a scene: the half's material, the files, a generator, and the scene's number within its half, 0 or 1."""

    sources: Sources
    material: Material
    half: str
    number: int
    rng: Rng
    names: list[str] = field(default_factory=list)

    def pick(self, seen: tuple[str, ...], unseen: tuple[str, ...]) -> str:
        """Pick the name for this half and number."""
        return (seen if self.half == "seen" else unseen)[self.number]

    def cutout(self, name: str) -> Float32Array:
        """Load an object by name."""
        self.names.append(name)
        return self.sources.cutout(self.material.objects[name])

    def ground(self, stage: Stage, index: int | None = None) -> Layer:
        """Load a photograph as background, by index or at random."""
        grounds = self.material.grounds
        index = int(self.rng.integers(len(grounds))) if index is None else index
        return ground(stage, self.sources.still(grounds[index % len(grounds)]))

    def texture(self, index: int | None = None) -> Float32Array:
        """Load a photograph as material, a random half of it."""
        textures = self.material.textures
        index = int(self.rng.integers(len(textures))) if index is None else index
        picture = self.sources.still(textures[index % len(textures)], 1000)
        height, width = (round(side * 0.6) for side in picture.shape[:2])
        top, left = (int(self.rng.integers(side - part)) for side, part in zip(picture.shape[:2], (height, width), strict=True))
        return np.ascontiguousarray(picture[top : top + height, left : left + width])

    def shot(self, stage: Stage, index: int) -> Layer:
        """Load a film shot as background."""
        return film(stage, self.sources.shot(self.material.shots[index], FRAMES))

    def body(self, view: Stage, picture: Float32Array, pose: Affine) -> Layer:
        """Draw a cut-out that moves as a plane; in a half's second scene it also leans, breathes and turns a little, as if alive."""
        return flat(view, picture, pose) if self.number == 0 else bent(view, picture, pose, self._living)

    @cached_property
    def _living(self) -> Bend:
        rng = self.rng.spawn(1)[0]
        lean, breath, yaw = sway(rng, 0.12), sway(rng, 0.05), sway(rng, 0.4)

        def bend(x: Float32Array, y: Float32Array, time: float) -> tuple[Float32Array, Float32Array, Float32Array]:
            upward, turn = 0.5 - y, yaw(time)
            u = (x - lean(time) * upward * np.abs(upward)) / np.cos(turn) * (1 + 0.3 * np.sin(turn) * x)
            return u.astype(np.float32), (y * (1 + breath(time))).astype(np.float32), np.ones_like(x)

        return bend

    def noise(self) -> float:
        """Choose the grain, in half of the scenes."""
        return 0.0 if self.number == 0 else float(self.rng.uniform(1.0, 2.2))

    def paint(self) -> Float32Array:
        """Choose a strong colour."""
        return vivid(self.rng.uniform(0, 360), self.rng.uniform(0.6, 0.9), self.rng.uniform(0.6, 0.9))


def stage(draft: Draft, pan: float = 0.1, zoom: float = 0.1, size: tuple[int, int] = (192, 192)) -> Stage:
    """Build a frame under a hand-held camera."""
    return Stage(*size, camera(draft.rng, pan, zoom))


# --- kinds --------------------------------------------------------------------------------------------------------------------


def recolour(draft: Draft) -> Scene:
    """Draw a plain object in another colour."""
    view = stage(draft)
    thing = draft.cutout(draft.pick(("bowl", "mouse"), ("pouf", "bird")))
    colours = thing[..., :3]
    changed = painted(colours, draft.paint()) if draft.number else hue_turned(colours, draft.rng.uniform(80, 280), 1.05)
    pose = path(draft.rng, 0.6, 0.2)
    return Scene(
        view,
        (same(draft.ground(view)), Part(draft.body(view, thing, pose), draft.body(view, with_colours(thing, changed), pose), True)),
        noise=draft.noise(),
    )


def film_recolour(draft: Draft) -> Clip:
    """Recolour an object of a real film: every pixel by its own colour, so that only the film determines its motion."""
    shot, key, change = {
        ("seen", 0): (
            Shot("box.mp4", 215, (0, 0, 640, 480), 2),
            keyed(42, 24, (0.45, 0.62), (0.25, 0.5)),
            lambda c: hue_turned(c, 150, 0.9),
        ),
        ("seen", 1): (Shot(BUNNY, 3930, (440, 0, 1020, 435)), keyed(10, 17, (0.42, 0.55), (0.12, 0.3)), lambda c: hue_turned(c, 265, 0.85)),
        ("unseen", 0): (
            Shot("cup.mp4", 40, (0, 0, 640, 480), 2),
            lambda c: np.clip((0.36 - luminance(c)) / 0.12, 0, 1)[..., None] ** 1.5,
            lambda c: np.clip(np.array([0.75, 0.08, 0.1], np.float32) * (0.35 + 2.2 * luminance(c)[..., None]) + 0.1 * c, 0, 1),
        ),
        ("unseen", 1): (
            Shot(BUNNY, 8040, (160, 0, 1120, 720)),
            keyed(10, 18, (0.5, 0.62), (0.15, 0.3)),
            lambda c: hue_turned(c, 110, 0.8, 1.05),
        ),
    }[draft.half, draft.number]

    def changed(colours: Float32Array) -> Float32Array:
        share = key(colours)
        return colours + (change(colours) - colours) * share

    return recoloured_film(draft.sources.shot(shot, FRAMES), changed, WIDE)


def retexture(draft: Draft) -> Scene:
    """Draw an object of another material."""
    view = stage(draft)
    thing = draft.cutout(draft.pick(("fig", "bust"), ("giant", "clock")))
    material = draft.texture() if draft.number == 0 else pattern(draft.rng, "stripes" if draft.half == "seen" else "checks")
    pose = path(draft.rng, 0.62, 0.18)
    changed = with_colours(thing, shaded_like(thing[..., :3], material))
    parts = (same(draft.ground(view)), Part(draft.body(view, thing, pose), draft.body(view, changed, pose), True))
    return Scene(view, parts, noise=draft.noise())


def top_of(cutout: Float32Array) -> tuple[float, float]:
    """Find the highest point of an object, in its own coordinates."""
    height, width = cutout.shape[:2]
    row = int(np.flatnonzero((cutout[..., 3] > 0.5).sum(1) > 0.05 * width)[0])
    column = float(np.flatnonzero(cutout[row, :, 3] > 0.5).mean())
    return (column - width / 2) / max(height, width), (row - height / 2) / max(height, width)


def worn(draft: Draft) -> Scene:
    """Put a small thing on an object that moves and turns its head: it moves along, and sideways with the turn."""
    view = stage(draft, 0.06, 0.08)
    name = draft.pick(("bust", "mouse"), ("spaniel", "owl"))
    thing, kind = draft.cutout(name), draft.pick(("sunglasses", "hat"), ("crown", "bow tie"))
    thing_pose, yaw = path(draft.rng, 0.85, 0.12, 0.22, 0.08), sway(draft.rng, 0.35)
    x, y = top_of(thing)
    place = {"sunglasses": (0.045, -0.08, 0.24), "hat": (0.1, -0.47, 0.36), "crown": (x, y + 0.02, 0.34), "bow tie": (0.0, 0.12, 0.3)}[kind]

    def turned(time: float) -> Float32Array:
        return thing_pose(time) @ affine(0, 0, 1, 0, float(np.cos(yaw(time)) ** 0.5))

    def attached(time: float) -> Float32Array:
        return thing_pose(time) @ affine(place[0] + 0.1 * float(np.sin(yaw(time))), place[1], place[2], 0, float(np.cos(yaw(time))))

    return Scene(
        view,
        (same(draft.ground(view)), same(flat(view, thing, turned)), Part(None, flat(view, garment(draft.rng, kind), attached), True)),
        noise=draft.noise(),
    )


def replacement(draft: Draft) -> Scene:
    """Draw another object with another silhouette that moves as the first did."""
    view = stage(draft)
    before, after = (
        draft.cutout(draft.pick(*names)) for names in ((("bowl", "squirrel"), ("cup", "bird")), (("butterfly", "box"), ("pouf", "spaniel")))
    )
    pose = path(draft.rng, 0.6, 0.2, 0.4)
    parts = (same(draft.ground(view)), Part(draft.body(view, before, pose), draft.body(view, after, pose), True))
    return Scene(view, parts, noise=draft.noise())


def still_at(draft: Draft, size: float) -> Affine:
    """Choose a position in the world, near the middle."""
    x, y, angle = draft.rng.uniform(-0.12, 0.12), draft.rng.uniform(0.0, 0.15), draft.rng.uniform(-0.15, 0.15)
    return lambda time: affine(x, y, size, angle)


def addition(draft: Draft) -> Scene:
    """Add an object to a place that the camera films."""
    view = stage(draft, 0.25, 0.3)
    new = draft.cutout(draft.pick(("squirrel", "bowl"), ("spaniel", "cup")))
    return Scene(
        view,
        (same(draft.ground(view, draft.number)), Part(None, flat(view, new, still_at(draft, draft.rng.uniform(0.45, 0.6))), True)),
        noise=draft.noise(),
    )


def removal(draft: Draft) -> Scene:
    """Remove an object that moves in front of a real film or a photograph."""
    thing = draft.cutout(draft.pick(("parakeet", "mouse"), ("bird", "owl")))
    if draft.number == 0:
        view = Stage(*WIDE)
        below = draft.shot(view, 1)
    else:
        view = stage(draft)
        below = draft.ground(view)
    pose = path(draft.rng, 0.5, 0.3)
    return Scene(view, (same(below), Part(flat(view, thing, pose), None, True)), noise=draft.noise())


def deformation(draft: Draft) -> Scene:
    """Draw a cloth with a photograph and travelling waves; the edit changes its colours, its material or a badge on it."""
    view, rng = stage(draft, 0.05, 0.06), draft.rng
    cloth = draft.texture(draft.number + (0 if draft.half == "seen" else 2))
    cloth = np.asarray(cv2.resize(cloth, (560, 420), interpolation=cv2.INTER_AREA), np.float32)
    pose, pace, phase = path(rng, 0.8, 0.06, 0.15, 0.05), gait(rng), rng.uniform(0, 6.28)
    waves = [
        (rng.uniform(0.02, 0.035), rng.uniform(6, 9), rng.uniform(-2, 2), rng.uniform(6, 10)),
        (0.012, rng.uniform(12, 16), rng.uniform(-5, 5), 13.0),
    ]

    def bend(x: Float32Array, y: Float32Array, time: float) -> tuple[Float32Array, Float32Array, Float32Array]:
        held = np.clip(x + 0.5, 0, 1) ** 0.8
        lift, slope = np.zeros_like(x), np.zeros_like(x)
        for size, across, down, speed in waves:
            angle = across * x + down * y - speed * pace(time) + phase
            lift = lift + size * held * np.sin(angle)
            slope = slope + size * across * held * np.cos(angle)
        return (x + 0.35 * lift).astype(np.float32), (y + lift).astype(np.float32), np.clip(1 + 1.1 * slope, 0.4, 1.5).astype(np.float32)

    edit = draft.pick(("badge", "material"), ("colour", "badge"))
    parts = [same(draft.ground(view))]
    if edit == "badge":
        badge = np.zeros((*cloth.shape[:2], 4), np.float32)
        small = np.asarray(
            cv2.resize(label(rng, "" if draft.half == "seen" else "7"), (190, 190), interpolation=cv2.INTER_AREA), np.float32
        )
        badge[115:305, 190:380] = small
        parts += [same(bent(view, cloth, pose, bend)), Part(None, bent(view, badge, pose, bend), True)]
    else:
        changed = hue_turned(cloth, rng.uniform(90, 270)) if edit == "colour" else pattern(rng, "checks")
        changed = np.asarray(cv2.resize(changed, (560, 420), interpolation=cv2.INTER_AREA), np.float32)
        parts.append(Part(bent(view, cloth, pose, bend), bent(view, changed, pose, bend), True))
    return Scene(view, tuple(parts), noise=draft.noise())


def rotation(draft: Draft) -> Scene:
    """Draw a ball, a can or a box that turns, so that sides appear that the first frame does not show."""
    view, rng = stage(draft, 0.05, 0.05), draft.rng
    pose = path(rng, rng.uniform(0.55, 0.65), 0.12, 0.12, 0.08)
    pace, wobble, way = gait(rng), sway(rng, 0.15), rng.choice([-1, 1])
    turns = rng.uniform(1.2, 2.4)

    def turn(time: float) -> tuple[float, float]:
        return float(way * turns * pace(time)), 0.35 + wobble(time)

    before, after = draft.texture(draft.number), draft.texture(draft.number + 1)
    if draft.number == 1:
        after = hue_turned(before, rng.uniform(90, 270))
    solid = draft.pick(("sphere", "cuboid"), ("cylinder", "sphere"))
    if solid == "sphere":
        layers = [sphere(view, around(skin), pose, turn) for skin in (before, after)]
    elif solid == "cylinder":
        lid = draft.paint()
        layers = [cylinder(view, around(skin), lid, pose, turn) for skin in (before, after)]
    else:
        shape = np.array([0.75, 0.55, 0.6], np.float32)
        layers = [cuboid(view, [np.roll(skin, 80 * n, 1) for n in range(6)], pose, turn, shape) for skin in (before, after)]
    return Scene(view, (same(draft.ground(view)), Part(layers[0], layers[1], True)), noise=draft.noise())


def fast(draft: Draft) -> Scene:
    """Draw fast motion, blurred as with an open shutter."""
    view = stage(draft, 0.05, 0.05)
    thing = draft.cutout(draft.pick(("fig", "butterfly"), ("cup", "spaniel")))
    colours, pose = thing[..., :3], path(draft.rng, 0.45, 0.36, 1.1, 0.2)
    swing, height = draft.rng.uniform(2.2, 3.2), draft.rng.uniform(0.15, 0.25)

    def bounced(time: float) -> Float32Array:
        return affine(0, height * (0.5 - abs(float(np.sin(swing * np.pi * time)))), 1, 0) @ pose(time)

    changed = shaded_like(colours, pattern(draft.rng, "dots")) if draft.number == 0 else hue_turned(colours, draft.rng.uniform(90, 270))
    parts = (same(draft.ground(view)), Part(flat(view, thing, bounced), flat(view, with_colours(thing, changed), bounced), True))
    return Scene(view, parts, exposure=float(draft.rng.uniform(0.6, 0.9)), noise=draft.noise())


def occlusion(draft: Draft) -> Scene:
    """Draw an occluder that passes in front of the edited object."""
    view, rng = stage(draft, 0.06, 0.06), draft.rng
    names = draft.pick(("bunny butterfly", "box squirrel"), ("pouf bird", "giant owl")).split()
    thing, passing = (draft.cutout(name) for name in names)
    pose, pace, way = path(rng, 0.6, 0.1, 0.2, 0.08), gait(rng), rng.choice([-1, 1])
    bob, height = sway(rng, 0.05), rng.uniform(-0.05, 0.15)

    def crossing(time: float) -> Float32Array:
        return affine(way * (1.5 * pace(time) - 0.75), height + bob(time), 0.55, bob(time))

    changed = painted(thing[..., :3], draft.paint()) if draft.number == 0 else shaded_like(thing[..., :3], draft.texture())
    parts = (
        same(draft.ground(view)),
        Part(draft.body(view, thing, pose), draft.body(view, with_colours(thing, changed), pose), True),
        same(flat(view, passing, crossing)),
    )
    return Scene(view, parts, noise=draft.noise())


def light(draft: Draft) -> Scene:
    """Dim and warm the light, or let the shadows of leaves pass."""
    view, rng = stage(draft, 0.05, 0.05), draft.rng
    thing = draft.cutout(draft.pick(("bowl", "bunny"), ("spaniel", "pouf")))
    pose, depth = path(rng, 0.65, 0.12, 0.2, 0.1), rng.uniform(0.45, 0.65)
    if draft.number == 0:
        swing, phase, warm = rng.uniform(0.8, 1.3), rng.uniform(0, 1), np.array([0.75, 1.0, 1.3], np.float32)

        def shine(time: float) -> Float32Array:
            dark = depth * (0.5 - 0.5 * np.cos(2 * np.pi * (swing * time))) * (1 - 0.2 * phase)
            return (1 - dark * warm * 0.85).astype(np.float32)
    else:
        leaves = cv2.GaussianBlur(luminance(draft.texture()), (0, 0), 25)
        span = np.percentile(leaves, [30, 70])
        gobo = np.clip((leaves - span[0]) / (span[1] - span[0]), 0, 1).astype(np.float32)[..., None].repeat(3, 2)
        drift = path(rng, 2.2, 0.5, 0.3, 0.1)
        shadow = flat(view, gobo, drift, cv2.BORDER_REFLECT)

        def shine(time: float) -> Float32Array:
            return np.asarray(1 - depth * (1 - shadow(time)[..., :1]), np.float32)

    changed = shaded_like(thing[..., :3], pattern(rng, "stripes")) if draft.number == 0 else painted(thing[..., :3], draft.paint())
    parts = (same(draft.ground(view)), Part(draft.body(view, thing, pose), draft.body(view, with_colours(thing, changed), pose), True))
    return Scene(view, parts, light=shine, noise=draft.noise())


def camera_move(draft: Draft) -> Scene:
    """Pan and zoom the camera over a real place with an edited object."""
    view = stage(draft, 0.4, 0.5)
    thing = draft.cutout(draft.pick(("bust", "dandelion"), ("giant", "clock")))
    changed = shaded_like(thing[..., :3], draft.texture()) if draft.number == 0 else painted(thing[..., :3], draft.paint())
    pose = still_at(draft, 0.6)
    parts = (same(draft.ground(view)), Part(flat(view, thing, pose), flat(view, with_colours(thing, changed), pose), True))
    return Scene(view, parts, noise=draft.noise())


def style(draft: Draft) -> Clip:
    """Change the style of a whole frame of real film: colour, tone and the grain of paper."""
    shot = {
        ("seen", 0): Shot(BUNNY, 4110, (200, 0, 1160, 720)),
        ("seen", 1): Shot(BUNNY, 3650, (160, 0, 1120, 720)),
        ("unseen", 0): Shot(BUNNY, 8330, (160, 0, 1120, 720)),
        ("unseen", 1): Shot(BUNNY, 9190, (100, 0, 1060, 720)),
    }[draft.half, draft.number]
    paper = luminance(draft.texture(2))
    paper = cv2.resize(paper, WIDE, interpolation=cv2.INTER_AREA)
    paper = (1 + 0.5 * (paper - cv2.GaussianBlur(paper, (0, 0), 6)))[..., None]
    rng, stops = draft.rng, np.sort(draft.rng.uniform(0.15, 0.85, 2))
    hues = [rng.uniform(200, 280), rng.uniform(300, 380), rng.uniform(20, 60)]

    def duotone(colours: Float32Array) -> Float32Array:
        scale = [vivid(hues[0], 0.18), vivid(hues[0], 0.55, 0.6), vivid(hues[1], 0.85, 0.5), vivid(hues[2], 1.0, 0.25)]
        return gradient_mapped(colours, scale) * 0.85 + 0.15 * colours

    def graded(colours: Float32Array) -> Float32Array:
        dark = luminance(colours)[..., None]
        curve = colours + 0.18 * np.sin(2 * np.pi * (colours - 0.5)) * (1 if stops[1] > 0.5 else -1)
        split = (1 - dark) * vivid(hues[0], 1.0, 0.5) + dark * vivid(hues[2], 1.0, 0.45)
        steps = np.round(curve * 5) / 5
        return (0.6 * curve + 0.4 * steps) * (0.45 + 0.65 * split)

    change = duotone if draft.number else graded
    return recoloured_film(draft.sources.shot(shot, FRAMES), lambda c: np.clip(change(c) * paper, 0, 1).astype(np.float32), WIDE)


def blooming(draft: Draft) -> Scene:
    """Draw an object that opens or swells, so that its outline changes."""
    view, rng = stage(draft, 0.05, 0.05), draft.rng
    pose, pace = path(rng, 0.8, 0.05, 0.12, 0.04), gait(rng)
    if draft.number == 1:
        thing = draft.cutout(draft.pick(("fig", "dandelion"), ("cup", "pouf")))
        lobes, phase, size = int(rng.integers(2, 5)), rng.uniform(0, 6.28), rng.uniform(0.45, 0.6)

        def swell(x: Float32Array, y: Float32Array, time: float) -> tuple[Float32Array, Float32Array, Float32Array]:
            grown = 1 - size * (1 - pace(time)) * (1 + 0.3 * np.cos(lobes * np.arctan2(y, x) + phase)) / 1.3
            return (x / grown).astype(np.float32), (y / grown).astype(np.float32), np.ones_like(x)

        changed = with_colours(thing, hue_turned(thing[..., :3], rng.uniform(90, 270), 1.2))
        part = Part(bent(view, thing, pose, swell), bent(view, changed, pose, swell), True)
    else:
        count, spread = int(rng.integers(6, 9)), rng.uniform(0.55, 0.75)
        before, after = draft.texture(0), shaded_like(draft.texture(1), pattern(rng, "stripes"))
        part = Part(*(petals(view, skin, pose, pace, count, spread) for skin in (before, after)), True)
    return Scene(view, (same(draft.ground(view)), part), noise=draft.noise())


def petals(view: Stage, skin: Float32Array, pose: Affine, pace: Callable[[float], float], count: int, spread: float) -> Layer:
    """Draw a flower whose petals, cut from `skin`, grow and open one over the other."""

    def petal(number: int) -> Layer:
        angle = 2 * np.pi * number / count

        def bend(x: Float32Array, y: Float32Array, time: float) -> tuple[Float32Array, Float32Array, Float32Array]:
            opened = 0.35 + 0.65 * pace(time)
            long, wide = 0.5 * opened, 0.2 * (0.5 + spread * pace(time))
            turned = angle + 0.5 * (1 - opened)
            along, across = x * np.cos(turned) + y * np.sin(turned), y * np.cos(turned) - x * np.sin(turned)
            u = along / long
            width = wide * np.sqrt(np.maximum(np.sin(np.pi * np.clip(u, 0, 1) ** 0.8), 1e-4))
            v = across / np.maximum(width, 1e-3)
            outside = (u < 0) | (u > 1) | (np.abs(v) > 1)
            return (
                np.where(outside, 9, u - 0.5).astype(np.float32),
                (0.35 * v).astype(np.float32),
                (0.6 + 0.45 * np.clip(u, 0, 1)).astype(np.float32),
            )

        return bent(view, square, pose, bend)

    square = np.asarray(cv2.resize(skin, (500, 500), interpolation=cv2.INTER_AREA), np.float32)
    layers = [petal(number) for number in range(count)]

    def draw(time: float) -> Float32Array:
        drawn = layers[0](time)
        for layer in layers[1:]:
            drawn = over(drawn, layer(time))
        return drawn

    return draw


KINDS: dict[str, Callable[[Draft], Scene | Clip]] = {
    "recolour": recolour,
    "film-recolour": film_recolour,
    "retexture": retexture,
    "worn": worn,
    "replacement": replacement,
    "addition": addition,
    "removal": removal,
    "deformation": deformation,
    "rotation": rotation,
    "fast": fast,
    "occlusion": occlusion,
    "light": light,
    "camera": camera_move,
    "style": style,
    "blooming": blooming,
}


# --- files --------------------------------------------------------------------------------------------------------------------


def build(kind: str, half: str, number: int, data: Path, seed: int) -> tuple[Clip, Draft]:
    """Build one scene."""
    stream = [seed, STREAM, list(KINDS).index(kind), list(HALVES).index(half), number]
    draft = Draft(Sources(data), HALVES[half], half, number, np.random.default_rng(stream))
    drawn = KINDS[kind](draft)
    return (render(drawn, FRAMES, draft.rng) if isinstance(drawn, Scene) else drawn), draft


def write(folder: Path, clip: Clip) -> None:
    """Write frames and masks as PNG."""
    for part, frames in {
        "source": clip.source[..., ::-1],
        "truth": clip.truth[..., ::-1],
        "mask": clip.mask.astype(np.uint8) * 255,
    }.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for index, frame in enumerate(frames):
            assert cv2.imwrite(str(folder / part / f"{index:03d}.png"), frame), folder


def main() -> None:
    """Write the requested scenes, and the list of all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="photographs, films and the network")
    parser.add_argument("--output", type=Path, required=True, help="a folder per scene, and scenes.jsonl")
    parser.add_argument("--only", choices=KINDS, action="append", help="kinds to draw anew; all by default")
    parser.add_argument("--half", choices=HALVES, action="append", help="halves to draw anew; both by default")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    listed = options.output / "scenes.jsonl"
    order = [f"{kind}-{half}-{number}" for kind in KINDS for half in HALVES for number in (0, 1)]
    for kind in options.only or KINDS:
        for half in options.half or HALVES:
            for number in (0, 1):
                name = f"{kind}-{half}-{number}"
                clip, draft = build(kind, half, number, options.data, options.seed)
                write(options.output / name, clip)
                used = [*draft.sources.used, *(f"object {each}" for each in draft.names)]
                texts = listed.read_text("utf-8").splitlines() if listed.is_file() else []
                lines = {record["name"]: record for record in map(json.loads, texts)}
                lines[name] = {"name": name, "kind": kind, "half": half, "licence": draft.sources.licences(), "from": used}
                listed.write_text("".join(json.dumps(lines[each]) + "\n" for each in order if each in lines), "utf-8")
                share = clip.mask.mean((1, 2))
                print(f"{name}: mask {share[0]:.1%} of frame 0, {share.min():.1%} to {share.max():.1%} of all", flush=True)


if __name__ == "__main__":
    main()
