"""Draw the edited frames of the demo's clip, as a person would in an image editor: `python examples/edit_frames.py`.

The box gets another design: a flat picture for each of its sides, warped in perspective to the corners that were marked in the
frame, and lit as the cardboard in the frame is. Needs only OpenCV 5 and numpy, and draws the same pictures every time.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

CLIP = Path(__file__).parent / "clip"
TEAL, DEEP, CREAM, GOLD, CORAL, SKY = (18, 92, 98), (10, 58, 70), (246, 236, 214), (226, 178, 92), (232, 110, 84), (168, 210, 205)
TOP, FRONT, END = (1280, 880), (1280, 400), (880, 400)
"""Width and height of the sides' flat pictures."""

CORNERS = {
    0: {
        "top": [(194.6, 16.4), (331.6, 50.4), (294.8, 116.0), (133.6, 62.0)],
        "front": [(133.6, 62.0), (294.8, 116.0), (286.4, 158.2), (138.2, 105.2)],
        "end": [(294.8, 116.0), (331.6, 50.4), (322.6, 91.4), (286.4, 158.2)],
    },
    32: {
        "top": [(147.0, 34.0), (290.6, 72.0), (225.4, 160.4), (62.4, 92.8)],
        "front": [(62.4, 92.8), (225.4, 160.4), (226.6, 202.4), (80.0, 137.2)],
        "end": [(225.4, 160.4), (290.6, 72.0), (285.6, 119.4), (226.6, 202.4)],
    },
}
"""Each side's corners in pixels of a frame, in the order of its flat picture: top left, top right, bottom right, bottom left."""

FINGER = {
    0: [(176, 0), (184, 9), (191, 14.5), (197, 17), (198, 19.5), (195, 22), (189, 22.3), (176, 30)],
    32: [(125, 25), (138, 30), (146, 35.5), (146.8, 39), (144.5, 42.5), (138, 42.5), (126, 50)],
}
"""Outline of the fingertip in front of the box."""

FINE = 6
"""Drawn pixels per pixel of the frame, along a row and a column."""

CARDBOARD = 0.36
"""Luminance of the cardboard in full light, as linear light."""


def read_frame(number: int) -> np.ndarray:
    """Read a frame of the clip, `[H, W, 3]` uint8 in RGB."""
    capture = cv2.VideoCapture(str(CLIP / "source.mp4"))
    frames = [capture.read()[1] for _ in range(number + 1)]
    return np.ascontiguousarray(frames[number][..., ::-1])


def framed(size: tuple[int, int], ground: tuple[int, int, int]) -> np.ndarray:
    """Draw a side's picture with a double border."""
    width, height = size
    picture = np.full((height, width, 3), ground, np.uint8)
    cv2.rectangle(picture, (34, 34), (width - 35, height - 35), GOLD, 12, cv2.LINE_AA)
    cv2.rectangle(picture, (58, 58), (width - 59, height - 59), GOLD, 3, cv2.LINE_AA)
    return picture


def write(picture: np.ndarray, text: str, middle: tuple[int, int], scale: float, colour: tuple[int, int, int], weight: int) -> None:
    """Write text centred at a position."""
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_TRIPLEX, scale, weight)
    place = (middle[0] - width // 2, middle[1] + height // 2)
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_TRIPLEX, scale, colour, weight, cv2.LINE_AA)


def landscape(picture: np.ndarray, left: int, top: int, right: int, bottom: int) -> None:
    """Draw hills before a rising sun, in a panel."""
    width, height, far = right - left, bottom - top, 2 * (right - left)
    panel = np.full((height, width, 3), SKY, np.uint8)
    sun = (round(0.62 * width), round(0.56 * height))
    for ray in range(24):
        angle = np.pi * ray / 12
        ends = [(sun[0] + far * np.cos(turn), sun[1] + far * np.sin(turn)) for turn in (angle, angle + np.pi / 24)]
        cv2.fillPoly(panel, [np.array([sun, *ends], np.int32)], CREAM, cv2.LINE_AA)
    cv2.circle(panel, sun, round(0.27 * height), CORAL, -1, cv2.LINE_AA)
    x = np.linspace(0, 1, 200)
    for base, tall, waves, colour in ((0.56, 0.16, 1.3, (70, 150, 142)), (0.72, 0.12, 2.1, TEAL), (0.87, 0.08, 1.1, DEEP)):
        ridge = base - tall * np.sin(2 * np.pi * waves * x + 9 * base) * (0.4 + 0.6 * x)
        outline = np.stack([x * width, ridge * height], 1)
        cv2.fillPoly(panel, [np.concatenate([outline, [[width, height], [0, height]]]).astype(np.int32)], colour, cv2.LINE_AA)
    picture[top:bottom, left:right] = panel
    cv2.rectangle(picture, (left, top), (right, bottom), GOLD, 10, cv2.LINE_AA)


def design() -> dict[str, np.ndarray]:
    """Draw the flat picture of each side."""
    top = framed(TOP, TEAL)
    landscape(top, 170, 110, 1110, 580)
    write(top, "MORNING TEA", (640, 692), 4.4, CREAM, 12)
    write(top, "HIGH VALLEY LEAVES", (640, 788), 1.5, GOLD, 4)
    front = framed(FRONT, DEEP)
    cv2.rectangle(front, (110, 110), (1170, 290), CREAM, -1)
    write(front, "MORNING TEA", (640, 200), 4.6, CORAL, 12)
    end = framed(END, CREAM)
    for x in range(90, 800, 70):
        cv2.fillPoly(end, [np.array([(x, 90), (x + 35, 90), (x + 35, 310), (x, 310)], np.int32)], TEAL)
    cv2.circle(end, (440, 200), 116, CREAM, -1, cv2.LINE_AA)
    cv2.circle(end, (440, 200), 84, CORAL, -1, cv2.LINE_AA)
    return {"top": top, "front": front, "end": end}


def linear(picture: np.ndarray) -> np.ndarray:
    """Convert sRGB 0..255 to linear light."""
    share = picture.astype(np.float32) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4).astype(np.float32)


def displayed(light: np.ndarray) -> np.ndarray:
    """Convert linear light to sRGB 0..255, not rounded."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def light_on(frame: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Estimate the light on a side, `[H, W]`: a plane fitted to the cardboard's reflection."""
    inside = np.zeros(frame.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.round(corners).astype(np.int32)], 1)
    hue, strength, _ = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV))
    y, x = np.nonzero((inside > 0) & (hue > 12) & (hue < 32) & (strength > 70))
    reflected = linear(frame)[y, x] @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    kept = np.abs(reflected - np.median(reflected)) < 0.6 * np.median(reflected)
    places = np.stack([x, y, np.ones_like(x)], 1)[kept].astype(np.float64)
    slope, *_ = np.linalg.lstsq(places, reflected[kept], rcond=None)
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]]
    return np.clip((slope[0] * columns + slope[1] * rows + slope[2]) / CARDBOARD, 0.2, 1.25).astype(np.float32)


def fine(points: list[tuple[float, float]]) -> np.ndarray:
    """Convert positions in a frame to positions in its finely drawn picture."""
    return np.array(points, np.float32) * FINE


def edited_frame(number: int) -> np.ndarray:
    """Draw the frame with the new box, `[H, W, 3]` uint8."""
    frame = read_frame(number)
    height, width = frame.shape[:2]
    size = (width * FINE, height * FINE)
    drawn, covered = np.zeros((size[1], size[0], 3), np.float32), np.zeros(size[::-1], np.float32)
    # The old design's colours bleed over the box's outline, so the new one is first drawn a little larger.
    for more in (FINE, 0):
        for name, flat in design().items():
            corners = fine(CORNERS[number][name])
            own = np.array([(0, 0), (flat.shape[1], 0), (flat.shape[1], flat.shape[0]), (0, flat.shape[0])], np.float32)
            perspective = cv2.getPerspectiveTransform(own, corners)
            placed = cv2.warpPerspective(linear(flat), perspective, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
            light = cv2.resize(light_on(frame, corners / FINE), size, interpolation=cv2.INTER_LINEAR)
            side = np.zeros(size[::-1], np.uint8)
            cv2.fillPoly(side, [np.round(corners).astype(np.int32)], 1)
            side = cv2.dilate(side, np.ones((more + 1, more + 1), np.uint8))
            drawn = np.where(side[..., None] > 0, placed * light[..., None], drawn)
            covered = np.maximum(covered, side)
    # Cardboard wears where it is folded.
    fold = np.zeros(size[::-1], np.uint8)
    left, front, back = (fine(CORNERS[number]["top"])[each].astype(int).tolist() for each in (3, 2, 1))
    for start, end in ((left, front), (front, back), (front, fine(CORNERS[number]["front"])[2].astype(int).tolist())):
        cv2.line(fold, start, end, 255, FINE)
    worn = cv2.GaussianBlur(fold, (0, 0), FINE / 2)[..., None].astype(np.float32) / 255
    drawn += 0.16 * worn * covered[..., None]
    finger = np.zeros(size[::-1], np.uint8)
    cv2.fillPoly(finger, [fine(FINGER[number]).astype(np.int32)], 1)
    covered[finger > 0] = 0
    # As soft as the camera draws.
    soft, share = (cv2.GaussianBlur(each, (0, 0), 0.45 * FINE) for each in (drawn * covered[..., None], covered))
    light, share = (cv2.resize(each, (width, height), interpolation=cv2.INTER_AREA) for each in (soft, share))
    mixed = displayed(light + linear(frame) * (1 - share[..., None]))
    grain = cv2.GaussianBlur(np.random.default_rng(number).normal(0, 3, frame.shape).astype(np.float32), (0, 0), 0.7)
    return np.clip(np.round(np.where(share[..., None] > 0.004, mixed + grain * share[..., None], frame)), 0, 255).astype(np.uint8)


def main() -> None:
    """Write the edited first and last frames."""
    for number in CORNERS:
        name = "first_frame.png" if number == 0 else f"frame_{number}.png"
        cv2.imwrite(str(CLIP / name), edited_frame(number)[..., ::-1])


if __name__ == "__main__":
    main()
