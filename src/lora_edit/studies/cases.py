"""The kinds of edit that the studies run, each a seeded function that returns a scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lora_edit.studies.scenes import (
    OUTLINES,
    Paint,
    Scene,
    Thing,
    block,
    disc,
    flat,
    flower,
    jelly,
    nowhere,
    quartered,
    ringed,
    rolling,
    striped,
    tiles,
    waves,
)
from lora_edit.types import Float64Array

Rng = np.random.Generator


def _ground(rng: Rng) -> Paint:
    return (waves if rng.random() < 0.5 else tiles)(rng)


def _skin(rng: Rng) -> Paint:
    return (flat, striped, quartered, ringed)[int(rng.integers(4))](rng)


def _path(rng: Rng, reach: float = 0.22, spin: float = 0.5, radius: float = 0.21) -> Callable[[float], tuple[float, float, float, float]]:
    """A smooth path through the frame's middle with a little swing, spin and growth."""
    heading, swing, phase = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.08), rng.uniform(0, 2 * np.pi)
    turn, growth, size = rng.normal(0, spin), rng.uniform(-0.15, 0.25), radius * rng.uniform(0.85, 1.2)
    dx, dy = np.cos(heading) * reach, np.sin(heading) * reach

    def pose(time: float) -> tuple[float, float, float, float]:
        along, across = 2 * time - 1, swing * np.sin(2 * np.pi * time + phase)
        return dx * along - dy * across, dy * along + dx * across, size * (1 + growth * time), turn * time

    return pose


def _pan(way: Float64Array) -> Callable[[float], tuple[float, float]]:
    """A camera that moves by `way` over the clip."""
    return lambda time: (float(way[0]) * (time - 0.5), float(way[1]) * (time - 0.5))


def recolour(rng: Rng) -> Scene:
    """A plain object in another colour."""
    thing = Thing(_path(rng), OUTLINES[rng.integers(4)], flat(rng))
    return Scene("recolour", _ground(rng), (thing,), 0, replace(thing, paint=flat(rng)))


def retexture(rng: Rng) -> Scene:
    """The same outline in another pattern."""
    thing = Thing(_path(rng), OUTLINES[rng.integers(4)], _skin(rng))
    return Scene("retexture", _ground(rng), (thing,), 0, replace(thing, paint=_skin(rng)))


def replacement(rng: Rng) -> Scene:
    """Another silhouette and pattern on the same path."""
    first, second = rng.permutation(4)[:2]
    thing = Thing(_path(rng), OUTLINES[first], _skin(rng))
    return Scene("replacement", _ground(rng), (thing,), 0, Thing(thing.pose, OUTLINES[second], _skin(rng)))


def rotation(rng: Rng) -> Scene:
    """A ball that turns, so that sides come to sight that the first frame never showed."""
    turns = rng.uniform(0.35, 0.6)
    thing = Thing(_path(rng, reach=0.15, spin=0.0), disc, rolling(rng, turns))
    return Scene("rotation", _ground(rng), (thing,), 0, replace(thing, paint=rolling(rng, turns)))


def blooming(rng: Rng) -> Scene:
    """A bud that opens, in another colour."""
    thing = Thing(_path(rng, reach=0.05, spin=0.2, radius=0.4), flower, ringed(rng))
    return Scene("blooming", _ground(rng), (thing,), 0, replace(thing, paint=ringed(rng)))


def deformation(rng: Rng) -> Scene:
    """A body that is squeezed and stretched, in another pattern."""
    thing = Thing(_path(rng, reach=0.12), jelly, _skin(rng))
    return Scene("deformation", _ground(rng), (thing,), 0, replace(thing, paint=_skin(rng)))


def fast(rng: Rng) -> Scene:
    """Fast motion with blur."""
    thing = Thing(_path(rng, reach=0.4, spin=1.5), OUTLINES[rng.integers(4)], _skin(rng))
    return Scene("fast", _ground(rng), (thing,), 0, replace(thing, paint=_skin(rng)), exposure=1.0)


def occlusion(rng: Rng) -> Scene:
    """The object passes behind a post."""
    thing = Thing(_path(rng, reach=0.3, spin=0.2, radius=0.17), disc, _skin(rng))
    post = Thing(lambda time: (0.0, 0.0, 0.12, 0.0), lambda u, v, time: np.abs(u) - 0.6, striped(rng))
    return Scene("occlusion", _ground(rng), (thing, post), 0, replace(thing, paint=_skin(rng)))


def camera(rng: Rng) -> Scene:
    """A moving camera."""
    thing = Thing(_path(rng, reach=0.1), OUTLINES[rng.integers(4)], _skin(rng))
    return Scene("camera", _ground(rng), (thing,), 0, replace(thing, paint=_skin(rng)), camera=_pan(rng.uniform(-0.2, 0.2, 2)))


def several(rng: Rng) -> Scene:
    """Two objects, one of them edited."""
    thing = Thing(_path(rng, reach=0.15, radius=0.17), OUTLINES[rng.integers(4)], _skin(rng))
    still = Thing(lambda time: (-0.38, 0.32, 0.13, 0.3), block, _skin(rng))
    return Scene("several", _ground(rng), (still, thing), 1, replace(thing, paint=_skin(rng)))


def addition(rng: Rng) -> Scene:
    """Something new that travels with the background's motion."""
    thing = Thing(_path(rng, reach=0.12), OUTLINES[rng.integers(4)], _skin(rng))
    pan = rng.uniform(-0.15, 0.15, 2)
    return Scene("addition", _ground(rng), (replace(thing, outline=nowhere),), 0, thing, camera=_pan(pan))


def removal(rng: Rng) -> Scene:
    """An object that is taken out, so that the background has to be continued."""
    thing = Thing(_path(rng, reach=0.25), OUTLINES[rng.integers(4)], _skin(rng))
    return Scene("removal", _ground(rng), (thing,), 0, replace(thing, outline=nowhere))


def light(rng: Rng) -> Scene:
    """The light dims and returns."""
    thing = Thing(_path(rng, reach=0.12), OUTLINES[rng.integers(4)], _skin(rng))
    depth = rng.uniform(0.25, 0.45)
    return Scene(
        "light",
        _ground(rng),
        (thing,),
        0,
        replace(thing, paint=_skin(rng)),
        light=lambda time: 1 - depth * np.sin(np.pi * time) ** 2,
    )


CASES: dict[str, Callable[[Rng], Scene]] = {
    case.__name__: case
    for case in (
        recolour, retexture, replacement, rotation, blooming, deformation, fast, occlusion, camera, several, addition, removal, light
    )
}  # fmt: skip


def draw_scenes(count: int, seed: int = 0, kinds: Sequence[str] = ()) -> list[Scene]:
    """`count` scenes, going round the kinds (all when none are named)."""
    names = list(kinds) or list(CASES)
    return [CASES[names[i % len(names)]](np.random.default_rng([seed, i])) for i in range(count)]
