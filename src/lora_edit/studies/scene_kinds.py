"""The kinds of edit in the studies; each is a seeded function that returns a scene."""

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
    """Draw a smooth path through the centre of the frame with some swing, rotation and growth."""
    direction, swing, phase = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.08), rng.uniform(0, 2 * np.pi)
    rotation_angle, growth, size = rng.normal(0, spin), rng.uniform(-0.15, 0.25), radius * rng.uniform(0.85, 1.2)
    dx, dy = np.cos(direction) * reach, np.sin(direction) * reach

    def pose(time: float) -> tuple[float, float, float, float]:
        along, across = 2 * time - 1, swing * np.sin(2 * np.pi * time + phase)
        return dx * along - dy * across, dy * along + dx * across, size * (1 + growth * time), rotation_angle * time

    return pose


def _make_pan(offset: Float64Array) -> Callable[[float], tuple[float, float]]:
    """Build the pan of a camera that moves by `offset` over the clip."""
    return lambda time: (float(offset[0]) * (time - 0.5), float(offset[1]) * (time - 0.5))


def recolour(rng: Rng) -> Scene:
    """A plain object in another colour."""
    scene_object = SceneObject(_make_path(rng), SIGNED_DISTANCES[rng.integers(4)], make_flat_texture(rng))
    return Scene("recolour", _choose_background(rng), (scene_object,), 0, replace(scene_object, texture=make_flat_texture(rng)))


def retexture(rng: Rng) -> Scene:
    """The same outline in another pattern."""
    scene_object = SceneObject(_make_path(rng), SIGNED_DISTANCES[rng.integers(4)], _choose_texture(rng))
    return Scene("retexture", _choose_background(rng), (scene_object,), 0, replace(scene_object, texture=_choose_texture(rng)))


def replacement(rng: Rng) -> Scene:
    """Another silhouette and pattern on the same path."""
    first, second = rng.permutation(4)[:2]
    scene_object = SceneObject(_make_path(rng), SIGNED_DISTANCES[first], _choose_texture(rng))
    return Scene(
        "replacement",
        _choose_background(rng),
        (scene_object,),
        0,
        SceneObject(scene_object.pose, SIGNED_DISTANCES[second], _choose_texture(rng)),
    )


def rotation(rng: Rng) -> Scene:
    """A rotating ball, whose hidden sides become visible after the first frame."""
    turns = rng.uniform(0.35, 0.6)
    scene_object = SceneObject(_make_path(rng, reach=0.15, spin=0.0), disc_distance, make_rotating_ball_texture(rng, turns))
    return Scene(
        "rotation", _choose_background(rng), (scene_object,), 0, replace(scene_object, texture=make_rotating_ball_texture(rng, turns))
    )


def blooming(rng: Rng) -> Scene:
    """An opening bud in another colour."""
    scene_object = SceneObject(_make_path(rng, reach=0.05, spin=0.2, radius=0.4), flower_distance, make_ring_texture(rng))
    return Scene("blooming", _choose_background(rng), (scene_object,), 0, replace(scene_object, texture=make_ring_texture(rng)))


def deformation(rng: Rng) -> Scene:
    """A body that deforms, in another pattern."""
    scene_object = SceneObject(_make_path(rng, reach=0.12), blob_distance, _choose_texture(rng))
    return Scene("deformation", _choose_background(rng), (scene_object,), 0, replace(scene_object, texture=_choose_texture(rng)))


def fast(rng: Rng) -> Scene:
    """An object with fast motion and motion blur, in another pattern."""
    scene_object = SceneObject(_make_path(rng, reach=0.4, spin=1.5), SIGNED_DISTANCES[rng.integers(4)], _choose_texture(rng))
    return Scene("fast", _choose_background(rng), (scene_object,), 0, replace(scene_object, texture=_choose_texture(rng)), exposure=1.0)


def occlusion(rng: Rng) -> Scene:
    """An object that passes behind a post, in another pattern."""
    scene_object = SceneObject(_make_path(rng, reach=0.3, spin=0.2, radius=0.17), disc_distance, _choose_texture(rng))
    post = SceneObject(lambda time: (0.0, 0.0, 0.12, 0.0), lambda u, v, time: np.abs(u) - 0.6, make_striped_texture(rng))
    return Scene("occlusion", _choose_background(rng), (scene_object, post), 0, replace(scene_object, texture=_choose_texture(rng)))


def camera(rng: Rng) -> Scene:
    """An object in front of a moving camera, in another pattern."""
    scene_object = SceneObject(_make_path(rng, reach=0.1), SIGNED_DISTANCES[rng.integers(4)], _choose_texture(rng))
    return Scene(
        "camera",
        _choose_background(rng),
        (scene_object,),
        0,
        replace(scene_object, texture=_choose_texture(rng)),
        camera=_make_pan(rng.uniform(-0.2, 0.2, 2)),
    )


def several(rng: Rng) -> Scene:
    """Two objects, one of them edited."""
    scene_object = SceneObject(_make_path(rng, reach=0.15, radius=0.17), SIGNED_DISTANCES[rng.integers(4)], _choose_texture(rng))
    static_object = SceneObject(lambda time: (-0.38, 0.32, 0.13, 0.3), rounded_box_distance, _choose_texture(rng))
    return Scene("several", _choose_background(rng), (static_object, scene_object), 1, replace(scene_object, texture=_choose_texture(rng)))


def addition(rng: Rng) -> Scene:
    """A new object that moves with the background."""
    scene_object = SceneObject(_make_path(rng, reach=0.12), SIGNED_DISTANCES[rng.integers(4)], _choose_texture(rng))
    pan = rng.uniform(-0.15, 0.15, 2)
    return Scene(
        "addition",
        _choose_background(rng),
        (replace(scene_object, signed_distance=empty_distance),),
        0,
        scene_object,
        camera=_make_pan(pan),
    )


def removal(rng: Rng) -> Scene:
    """The removal of an object, whose place the background has to fill."""
    scene_object = SceneObject(_make_path(rng, reach=0.25), SIGNED_DISTANCES[rng.integers(4)], _choose_texture(rng))
    return Scene("removal", _choose_background(rng), (scene_object,), 0, replace(scene_object, signed_distance=empty_distance))


def light(rng: Rng) -> Scene:
    """An object under light that dims and recovers, in another pattern."""
    scene_object = SceneObject(_make_path(rng, reach=0.12), SIGNED_DISTANCES[rng.integers(4)], _choose_texture(rng))
    depth = rng.uniform(0.25, 0.45)
    return Scene(
        "light",
        _choose_background(rng),
        (scene_object,),
        0,
        replace(scene_object, texture=_choose_texture(rng)),
        light=lambda time: 1 - depth * np.sin(np.pi * time) ** 2,
    )


SCENE_KINDS: dict[str, Callable[[Rng], Scene]] = {
    kind.__name__: kind
    for kind in (
        recolour, retexture, replacement, rotation, blooming, deformation, fast, occlusion, camera, several, addition, removal, light
    )
}  # fmt: skip


def draw_scenes(count: int, seed: int = 0, kinds: Sequence[str] = ()) -> list[Scene]:
    """Draw `count` scenes, cycling through `kinds` (all kinds when empty)."""
    names = list(kinds) or list(SCENE_KINDS)
    return [SCENE_KINDS[names[i % len(names)]](np.random.default_rng([seed, i])) for i in range(count)]
