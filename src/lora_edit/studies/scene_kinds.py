"""The kinds of edit that the studies run, each a seeded function that returns a scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lora_edit.studies.scenes import (
    SIGNED_DISTANCES,
    Scene,
    SceneObject,
    Texture,
    blob_distance,
    disc_distance,
    empty_distance,
    flower_distance,
    make_flat_texture,
    make_quadrant_texture,
    make_ring_texture,
    make_rotating_ball_texture,
    make_striped_texture,
    make_tile_texture,
    make_wave_texture,
    rounded_box_distance,
)
from lora_edit.types import Float64Array

Rng = np.random.Generator


def _choose_background(rng: Rng) -> Texture:
    return (make_wave_texture if rng.random() < 0.5 else make_tile_texture)(rng)


def _choose_texture(rng: Rng) -> Texture:
    return (make_flat_texture, make_striped_texture, make_quadrant_texture, make_ring_texture)[int(rng.integers(4))](rng)


def _make_path(
    rng: Rng, reach: float = 0.22, spin: float = 0.5, radius: float = 0.21
) -> Callable[[float], tuple[float, float, float, float]]:
    """A smooth path through the frame's middle with a little swing, spin and growth."""
    heading, swing, phase = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.08), rng.uniform(0, 2 * np.pi)
    turn, growth, size = rng.normal(0, spin), rng.uniform(-0.15, 0.25), radius * rng.uniform(0.85, 1.2)
    dx, dy = np.cos(heading) * reach, np.sin(heading) * reach

    def pose(time: float) -> tuple[float, float, float, float]:
        along, across = 2 * time - 1, swing * np.sin(2 * np.pi * time + phase)
        return dx * along - dy * across, dy * along + dx * across, size * (1 + growth * time), turn * time

    return pose


def _make_pan(offset: Float64Array) -> Callable[[float], tuple[float, float]]:
    """A camera that moves by `way` over the clip."""
    return lambda time: (float(offset[0]) * (time - 0.5), float(offset[1]) * (time - 0.5))


def recolour(rng: Rng) -> Scene:
    """A plain object in another colour."""
    thing = SceneObject(_make_path(rng), SIGNED_DISTANCES[rng.integers(4)], make_flat_texture(rng))
    return Scene("recolour", _choose_background(rng), (thing,), 0, replace(thing, texture=make_flat_texture(rng)))


def retexture(rng: Rng) -> Scene:
    """The same outline in another pattern."""
    thing = SceneObject(_make_path(rng), SIGNED_DISTANCES[rng.integers(4)], _choose_texture(rng))
    return Scene("retexture", _choose_background(rng), (thing,), 0, replace(thing, texture=_choose_texture(rng)))


def replacement(rng: Rng) -> Scene:
    """Another silhouette and pattern on the same path."""
    first, second = rng.permutation(4)[:2]
    thing = SceneObject(_make_path(rng), SIGNED_DISTANCES[first], _choose_texture(rng))
    return Scene(
        "replacement", _choose_background(rng), (thing,), 0, SceneObject(thing.pose, SIGNED_DISTANCES[second], _choose_texture(rng))
    )


def rotation(rng: Rng) -> Scene:
    """A ball that turns, so that sides come to sight that the first frame never showed."""
    turns = rng.uniform(0.35, 0.6)
    thing = SceneObject(_make_path(rng, reach=0.15, spin=0.0), disc_distance, make_rotating_ball_texture(rng, turns))
    return Scene("rotation", _choose_background(rng), (thing,), 0, replace(thing, texture=make_rotating_ball_texture(rng, turns)))


def blooming(rng: Rng) -> Scene:
    """A bud that opens, in another colour."""
    thing = SceneObject(_make_path(rng, reach=0.05, spin=0.2, radius=0.4), flower_distance, make_ring_texture(rng))
    return Scene("blooming", _choose_background(rng), (thing,), 0, replace(thing, texture=make_ring_texture(rng)))


def deformation(rng: Rng) -> Scene:
    """A body that is squeezed and stretched, in another pattern."""
    thing = SceneObject(_make_path(rng, reach=0.12), blob_distance, _choose_texture(rng))
    return Scene("deformation", _choose_background(rng), (thing,), 0, replace(thing, texture=_choose_texture(rng)))


def fast(rng: Rng) -> Scene:
    """Fast motion with blur."""
    thing = SceneObject(_make_path(rng, reach=0.4, spin=1.5), SIGNED_DISTANCES[rng.integers(4)], _choose_texture(rng))
    return Scene("fast", _choose_background(rng), (thing,), 0, replace(thing, texture=_choose_texture(rng)), exposure=1.0)


def occlusion(rng: Rng) -> Scene:
    """The object passes behind a post."""
    thing = SceneObject(_make_path(rng, reach=0.3, spin=0.2, radius=0.17), disc_distance, _choose_texture(rng))
    post = SceneObject(lambda time: (0.0, 0.0, 0.12, 0.0), lambda u, v, time: np.abs(u) - 0.6, make_striped_texture(rng))
    return Scene("occlusion", _choose_background(rng), (thing, post), 0, replace(thing, texture=_choose_texture(rng)))


def camera(rng: Rng) -> Scene:
    """A moving camera."""
    thing = SceneObject(_make_path(rng, reach=0.1), SIGNED_DISTANCES[rng.integers(4)], _choose_texture(rng))
    return Scene(
        "camera",
        _choose_background(rng),
        (thing,),
        0,
        replace(thing, texture=_choose_texture(rng)),
        camera=_make_pan(rng.uniform(-0.2, 0.2, 2)),
    )


def several(rng: Rng) -> Scene:
    """Two objects, one of them edited."""
    thing = SceneObject(_make_path(rng, reach=0.15, radius=0.17), SIGNED_DISTANCES[rng.integers(4)], _choose_texture(rng))
    still = SceneObject(lambda time: (-0.38, 0.32, 0.13, 0.3), rounded_box_distance, _choose_texture(rng))
    return Scene("several", _choose_background(rng), (still, thing), 1, replace(thing, texture=_choose_texture(rng)))


def addition(rng: Rng) -> Scene:
    """Something new that travels with the background's motion."""
    thing = SceneObject(_make_path(rng, reach=0.12), SIGNED_DISTANCES[rng.integers(4)], _choose_texture(rng))
    pan = rng.uniform(-0.15, 0.15, 2)
    return Scene("addition", _choose_background(rng), (replace(thing, signed_distance=empty_distance),), 0, thing, camera=_make_pan(pan))


def removal(rng: Rng) -> Scene:
    """An object that is taken out, so that the background has to be continued."""
    thing = SceneObject(_make_path(rng, reach=0.25), SIGNED_DISTANCES[rng.integers(4)], _choose_texture(rng))
    return Scene("removal", _choose_background(rng), (thing,), 0, replace(thing, signed_distance=empty_distance))


def light(rng: Rng) -> Scene:
    """The light dims and returns."""
    thing = SceneObject(_make_path(rng, reach=0.12), SIGNED_DISTANCES[rng.integers(4)], _choose_texture(rng))
    depth = rng.uniform(0.25, 0.45)
    return Scene(
        "light",
        _choose_background(rng),
        (thing,),
        0,
        replace(thing, texture=_choose_texture(rng)),
        light=lambda time: 1 - depth * np.sin(np.pi * time) ** 2,
    )


SCENE_KINDS: dict[str, Callable[[Rng], Scene]] = {
    case.__name__: case
    for case in (
        recolour, retexture, replacement, rotation, blooming, deformation, fast, occlusion, camera, several, addition, removal, light
    )
}  # fmt: skip


def draw_scenes(count: int, seed: int = 0, kinds: Sequence[str] = ()) -> list[Scene]:
    """`count` scenes, going round the kinds (all when none are named)."""
    names = list(kinds) or list(SCENE_KINDS)
    return [SCENE_KINDS[names[i % len(names)]](np.random.default_rng([seed, i])) for i in range(count)]
