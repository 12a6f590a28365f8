"""Textures for pretraining scenes: photographs shipped by free packages, noise, stripes, gradients.

The photographs are those inside the scikit-image, scikit-learn and matplotlib wheels (public domain, CC0 or CC-BY; see
each package's README beside them). Everything else is drawn here from a seeded generator.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import cv2
import numpy as np

Array = np.ndarray
_PHOTOGRAPHS = {
    "skimage.data": [
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "rocket.jpg",
        "hubble_deep_field.jpg",
        "motorcycle_left.png",
        "brick.png",
        "grass.png",
        "gravel.png",
        "retina.jpg",
        "ihc.png",
        "camera.png",
        "coins.png",
        "page.png",
        "text.png",
    ],
    "sklearn.datasets.images": ["china.jpg", "flower.jpg"],
    "matplotlib": ["mpl-data/sample_data/grace_hopper.jpg", "mpl-data/sample_data/Minduka_Present_Blue_Pack.png"],
}


@cache
def photographs() -> tuple[Array, ...]:
    """All photographs as float32 RGB in [0, 1], longest side at most 640; missing files are left out."""
    found = []
    for package, names in _PHOTOGRAPHS.items():
        for name in names:
            path = files(package).joinpath(name)
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if picture is None:
                continue
            scale = 640 / max(picture.shape[:2])
            if scale < 1:
                picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            found.append(picture[:, :, ::-1].astype(np.float32) / 255)
    return tuple(found)


def photograph(rng: np.random.Generator, size: int) -> Array:
    """A random square crop of a photograph at a random scale, [size, size, 3]."""
    picture = photographs()[rng.integers(len(photographs()))]
    side = int(min(picture.shape[:2]) * rng.uniform(0.2, 0.95))
    top = rng.integers(picture.shape[0] - side + 1)
    left = rng.integers(picture.shape[1] - side + 1)
    crop = cv2.resize(picture[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)
    crop = np.rot90(crop, rng.integers(4)) if rng.random() < 0.3 else crop
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


def palette(rng: np.random.Generator, count: int) -> Array:
    """Random RGB colours, [count, 3], some of them grey or saturated."""
    colours = rng.random((count, 3)).astype(np.float32)
    grey = rng.random((count, 1)) < 0.2
    colours = np.where(grey, colours.mean(1, keepdims=True), colours)
    vivid = rng.random((count, 1)) < 0.3
    return np.where(vivid, (colours > 0.5) * 0.9 + 0.05, colours).astype(np.float32)


def noise(rng: np.random.Generator, size: int) -> Array:
    """Multi-octave noise coloured by a palette, [size, size, 3]."""
    field = np.zeros((size, size), np.float32)
    for octave in range(1, rng.integers(3, 6)):
        cells = 2**octave + 1
        field += cv2.resize(rng.random((cells, cells)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC) / 1.6**octave
    field = (field - field.min()) / (np.ptp(field) + 1e-6)
    colours = palette(rng, rng.integers(2, 5))
    places = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(field, places, colours[:, c]) for c in range(3)], -1).astype(np.float32)


def stripes(rng: np.random.Generator, size: int) -> Array:
    """Stripes, checks or dots in two or three colours at a random angle, [size, size, 3]."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    period = rng.uniform(2, 9)
    kind = rng.integers(3)
    wave = np.sin(2 * np.pi * period * u)
    if kind == 1:
        wave = wave * np.sin(2 * np.pi * period * v)
    elif kind == 2:
        wave = 0.5 - ((u * period % 1 - 0.5) ** 2 + (v * period % 1 - 0.5) ** 2) * 5
    weight = np.clip(0.5 + wave * rng.uniform(1, 8), 0, 1)[..., None]
    first, second = palette(rng, 2)
    return (first * weight + second * (1 - weight)).astype(np.float32)


def gradient(rng: np.random.Generator, size: int) -> Array:
    """A linear blend of two colours, sometimes nearly flat, [size, size, 3]."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    angle = rng.uniform(0, 2 * np.pi)
    weight = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    first, second = palette(rng, 2)
    second = first + (second - first) * rng.uniform(0, 1) ** 2
    return (first * weight + second * (1 - weight)).astype(np.float32)


def recolour(rng: np.random.Generator, picture: Array) -> Array:
    """Random channel order, gain, inversion and gamma: the same scene never keeps its colours."""
    out = picture[..., rng.permutation(3)] if rng.random() < 0.4 else picture
    if rng.random() < 0.15:
        out = 1 - out
    if rng.random() < 0.4:
        out = out * rng.uniform(0.5, 1.3, 3) + rng.uniform(-0.1, 0.1, 3)
    if rng.random() < 0.3:
        out = np.clip(out, 0, 1) ** rng.uniform(0.6, 1.7)
    return np.ascontiguousarray(np.clip(out, 0, 1), dtype=np.float32)


def texture(rng: np.random.Generator, size: int, photo: float = 0.5) -> Array:
    """Any texture above, recoloured, [size, size, 3]; `photo` is the share of photographs."""
    if rng.random() < photo:
        picture = photograph(rng, size)
    else:
        picture = (noise, stripes, gradient)[rng.integers(3)](rng, size)
    return recolour(rng, picture)
