"""Edited first frames for real clips, made by code: recoloured, pasted, worn, replaced, removed, and a style of the whole frame.

Pictures are uint8 RGB `[H, W, 3]`, masks float32 `[H, W]` in [0, 1], positions in pixels of the picture. Every edit is a function of the
picture and a generator, and gives the same picture for the same seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.types import Float32Array

Picture = npt.NDArray[np.uint8]
Points = Sequence[tuple[float, float]]
Edit = Callable[[Picture, np.random.Generator], Picture]

FINE = 4
"""Supersampling of drawn shapes, for smooth edges."""


def polygon(shape: tuple[int, ...], corners: Points) -> Float32Array:
    """Draw the area inside the corners, with a smooth edge."""
    height, width = shape[:2]
    mask = np.zeros((height * FINE, width * FINE), np.uint8)
    cv2.fillPoly(mask, [np.round(np.array(corners) * FINE).astype(np.int32)], 255)
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA), np.float32) / 255


def blend(below: Picture, above: Float32Array, mask: Float32Array) -> Picture:
    """Blend `above` (0 to 255) over `below` by the mask."""
    out = below * (1 - mask[..., None]) + above * mask[..., None]
    return np.asarray(np.clip(np.round(out), 0, 255), np.uint8)


def soft(mask: npt.NDArray[np.bool_], radius: float = 0.8) -> Float32Array:
    """Soften a mask's edge and remove specks and pinholes."""
    kernel = np.ones((3, 3), np.uint8)
    clean = cv2.morphologyEx(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel), cv2.MORPH_OPEN, kernel)
    return np.asarray(cv2.GaussianBlur(clean.astype(np.float32), (0, 0), radius), np.float32)


def largest(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Select the largest connected part and fill its holes."""
    _, labels, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    part = (labels == 1 + int(np.argmax(facts[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(part, outlines, -1, 1, -1) > 0)


def hues(picture: Picture) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Compute hue in degrees, saturation and value in [0, 1], each `[H, W]`."""
    hue, saturation, value = cv2.split(cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2HSV))
    return np.asarray(hue), np.asarray(saturation), np.asarray(value)


def turned(picture: Picture, degrees: float, saturation: float = 1.0, value: float = 1.0) -> Float32Array:
    """Rotate the hues of a picture (0 to 255) and multiply its saturation and value."""
    h, s, v = hues(picture)
    hsv = np.stack([(h + degrees) % 360, np.clip(s * saturation, 0, 1), np.clip(v * value, 0, 1)], -1).astype(np.float32)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32) * 255


def onto(layer: Float32Array, corners: Points, shape: tuple[int, ...]) -> Float32Array:
    """Warp a flat layer `[h, w, C]` so that its corners (top left, then clockwise) lie at these positions of a frame."""
    height, width = layer.shape[:2]
    around = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    matrix = cv2.getPerspectiveTransform(around, np.array(corners, np.float32) * FINE)
    large = cv2.warpPerspective(layer, matrix, (shape[1] * FINE, shape[0] * FINE), flags=cv2.INTER_AREA)
    return np.asarray(cv2.resize(large, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.float32)


def label(picture: Picture, rng: np.random.Generator) -> Picture:
    """Stick a paper label with writing onto the top of the box."""
    flat = np.full((360, 560, 4), 255, np.uint8)
    flat[..., :3] = np.clip(rng.normal((250, 247, 238), 2, (360, 560, 3)), 0, 255)
    cv2.rectangle(flat, (14, 14), (545, 345), (20, 110, 70, 255), 10)
    for text, place, size, width in (("GREEN", (80, 165), 3.9, 18), ("TEA", (150, 295), 4.2, 18)):
        cv2.putText(flat, text, place, cv2.FONT_HERSHEY_DUPLEX, size, (20, 110, 70, 255), width, cv2.LINE_AA)
    top = np.array([(208, 29), (399, 70), (329, 155), (130, 78)], np.float32)
    matrix = cv2.getPerspectiveTransform(np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32), top)
    inner = np.array([[(0.17, 0.2), (0.83, 0.2), (0.83, 0.8), (0.17, 0.8)]], np.float32)
    layer = onto(flat.astype(np.float32), [tuple(p) for p in cv2.perspectiveTransform(inner, matrix)[0]], picture.shape)
    light = 0.9 + 0.1 * cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (0, 0), 9)[..., None] / 160
    mask = layer[..., 3] / 255
    colours = layer[..., :3] / np.maximum(mask, 1e-3)[..., None]
    return blend(picture, cv2.GaussianBlur(colours * light, (0, 0), 0.6), mask)


def chequered(picture: Picture, rng: np.random.Generator) -> Picture:
    """Draw red checks on the white tablecloth."""
    _, saturation, value = hues(picture)
    table = polygon(picture.shape, [(88, 151), (398, 151), (482, 236), (482, 362), (-2, 362), (-2, 296)])
    box = polygon(picture.shape, [(182, 118), (226, 56), (412, 86), (402, 172), (383, 224), (180, 178)])
    pen = polygon(picture.shape, [(154, 160), (190, 162), (190, 176), (154, 174)])
    cloth = largest((table > 0.5) & (box < 0.5) & (pen < 0.5) & (saturation < 0.42) & (value > 0.3))
    squares = np.zeros((800, 800, 1), np.float32)
    squares[(np.arange(800) // 40) % 2 == 0] += 0.5
    squares[:, (np.arange(800) // 40) % 2 == 0] += 0.5
    pattern = onto(squares, [(92, 150), (400, 150), (640, 380), (-170, 380)], picture.shape)[..., None]
    weave = 1 + rng.normal(0, 0.015, (*picture.shape[:2], 1))
    dyed = picture * weave * (1 - pattern * np.array([0.1, 0.78, 0.74]))
    return blend(picture, dyed.astype(np.float32), soft(cloth))


def striped(picture: Picture, rng: np.random.Generator) -> Picture:
    """Replace the black cup by one of white and blue stripes with an orange lid."""
    h, s, v = hues(picture)
    outline = polygon(
        picture.shape,
        [
            (221, 82),
            (226, 79),
            (298, 78),
            (304, 82),
            (304, 109),
            (299, 112),
            (299, 262),
            (288, 272),
            (240, 272),
            (233, 262),
            (228, 112),
            (221, 108),
        ],
    )
    skin = (s > 0.24) & (v > 0.24) & ((h < 50) | (h > 345))
    cup = outline * (1 - soft(skin))
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    across = np.clip((x - 228 - (y - 112) * 0.03) / 70, 0, 1) * 2 - 1
    down = y + 5 * np.sqrt(1 - np.square(across))
    stripes = 1 / (1 + np.exp(-6 * np.sin(down * 2 * np.pi / 26)))
    body = np.array([245, 243, 238]) * stripes[..., None] + np.array([38, 84, 170]) * (1 - stripes[..., None])
    lid = np.broadcast_to(np.array([235, 120, 40], np.float32), picture.shape)
    colours = np.where((y < 111)[..., None], lid, body)
    shade = 0.62 + 0.4 * np.sqrt(1 - 0.85 * np.square(across + 0.25) / 1.6) + rng.normal(0, 0.008, y.shape)
    shade *= np.where(np.abs(y - 112) < 2.5, 0.8, 1)
    return blend(picture, cv2.GaussianBlur((colours * shade[..., None]).astype(np.float32), (0, 0), 0.7), cup)


def red_lid(picture: Picture, rng: np.random.Generator) -> Picture:
    """Recolour the cup's black lid in red."""
    del rng
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    lid = polygon(
        picture.shape, [(251, 58), (262, 60), (290, 73), (314, 95), (314, 103), (304, 121), (296, 121), (262, 108), (236, 85), (236, 79)]
    )
    dark = soft(grey < 120)
    light = 0.55 + 2.2 * grey / 255
    return blend(picture, np.array([205, 30, 34], np.float32) * light[..., None], lid * dark)


def blue_fur(picture: Picture, rng: np.random.Generator) -> Picture:
    """Recolour the leaping squirrel's brown fur in blue grey."""
    del rng
    h, s, _ = hues(picture)
    around = polygon(
        picture.shape, [(0, 125), (60, 98), (150, 68), (215, 62), (280, 120), (280, 160), (215, 165), (120, 195), (40, 240), (0, 210)]
    )
    fur = (around > 0.5) & (s > 0.1) & ((h < 60) | (h > 320))
    return blend(picture, turned(picture, 195, 0.8), soft(cv2.dilate(fur.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0, 1.2))


def glasses(picture: Picture, rng: np.random.Generator) -> Picture:
    """Add round black glasses with slightly tinted lenses."""
    del rng
    fine = np.zeros((picture.shape[0] * FINE, picture.shape[1] * FINE, 2), np.uint8)
    for x, y, radius in ((168, 109, 43), (297, 121, 39)):
        cv2.circle(fine, (x * FINE, y * FINE), radius * FINE, (0, 90), -1, cv2.LINE_AA)
        cv2.circle(fine, (x * FINE, y * FINE), radius * FINE, (255, 255), 6 * FINE, cv2.LINE_AA)
    cv2.ellipse(fine, (233 * FINE, 116 * FINE), (25 * FINE, 15 * FINE), 4, 190, 350, (255, 255), 5 * FINE, cv2.LINE_AA)
    masks = cv2.resize(fine, picture.shape[1::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    colours = np.array([120, 165, 205]) * (1 - masks[..., :1]) + np.array([22, 20, 24]) * masks[..., :1]
    return blend(picture, colours.astype(np.float32), masks[..., 1])


def party_hat(picture: Picture, rng: np.random.Generator) -> Picture:
    """Add a cone of green paper with dots, on the head between the ears."""
    cone = polygon(picture.shape, [(212, 131), (250, 50), (292, 126), (272, 134), (238, 136)])
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    dots = np.zeros(picture.shape[:2], np.float32)
    for row in range(4):
        for column in np.arange(-row, row + 1) * 15.0 + rng.uniform(-2, 2):
            dots = np.maximum(dots, np.clip(5.2 - np.hypot(x - 251 - column, y - 72 - 17 * row), 0, 1))
    colours = np.array([40, 150, 90]) * (1 - dots[..., None]) + np.array([250, 225, 90]) * dots[..., None]
    shade = np.clip(1.12 - np.abs(x - 244) / np.maximum(12, (y - 40) * 0.5) * 0.3, 0.5, 1.15)
    out = blend(picture, (colours * shade[..., None]).astype(np.float32), cone)
    ball = np.clip(8.5 - np.hypot(x - 250, y - 50), 0, 1).astype(np.float32)
    return blend(out, np.array([240, 70, 80], np.float32) * np.ones((1, 1, 3), np.float32), ball)


def orange_wings(picture: Picture, rng: np.random.Generator) -> Picture:
    """Recolour the purple butterfly in orange."""
    del rng
    h, s, v = hues(picture)
    around = polygon(picture.shape, [(274, 130), (300, 130), (322, 158), (355, 130), (368, 132), (366, 222), (275, 224)])
    wings = (around > 0.5) & (s > 0.24) & (h > 205) & (h < 345)
    hue = 18 + (h - 205) * 0.2
    hsv = np.stack([hue, np.clip(s * 1.5 + 0.2, 0, 1), v], -1).astype(np.float32)
    return blend(picture, np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32) * 255, soft(wings))


def without_mushrooms(picture: Picture, rng: np.random.Generator) -> Picture:
    """Remove the red mushrooms and the flowers beside them and fill in the background."""
    h, s, v = hues(picture)
    around = polygon(picture.shape, [(158, 134), (232, 134), (232, 192), (158, 192)])
    bright = (v > 0.2) & (s > 0.25) & ((h > 250) | ((h < 12) & (s > 0.7)))
    stem = polygon(picture.shape, [(174, 166), (207, 166), (204, 190), (178, 190)]) > 0.5
    hole = cv2.dilate(((around > 0.5) & (bright | stem)).astype(np.uint8), np.ones((7, 7), np.uint8))
    filled = cv2.inpaint(picture, hole, 5, cv2.INPAINT_TELEA)
    grain = cv2.GaussianBlur(rng.normal(0, 1, picture.shape[:2]), (0, 0), 1.2) * 22
    return blend(picture, filled + grain[..., None].astype(np.float32), soft(hole > 0, 1.5))


def night(picture: Picture, rng: np.random.Generator) -> Picture:
    """Make the whole frame look like a moonlit night: blue, dark, with darker corners."""
    del rng
    light = picture.astype(np.float32) / 255
    grey = cv2.cvtColor(light, cv2.COLOR_RGB2GRAY)[..., None]
    cold = (0.45 * light + 0.55 * grey) ** 1.35 * np.array([0.5, 0.68, 1.05])
    y, x = np.mgrid[-1 : 1 : picture.shape[0] * 1j, -1 : 1 : picture.shape[1] * 1j]
    corners = 1 - 0.3 * np.clip(x**2 + y**2, 0, 2) / 2
    return np.asarray(np.clip(np.round(cold * corners[..., None] * 255), 0, 255), np.uint8)
