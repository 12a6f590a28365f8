"""Sources of the real scenes: photographs, film shots, and objects cut out of both with U2-Net-p.

Arrays are float32 RGB in [0, 1] `[H, W, 3]`; cut-outs are RGBA with straight colours `[H, W, 4]`. The two
halves share no photograph and no shot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.types import Float32Array

BUNNY, OPENCV = "bbb.mp4", "Apache-2.0 (OpenCV contributors)"
PHOTOS = {
    "Bridge_by_Sander_Klootwijk.jpg": "CC-BY-SA-4.0 (Sander Klootwijk)",
    "Dragonfly_by_Bolly.jpg": "CC-BY-SA-4.0 (Bolly)",
    "Fossa_by_Jasper_Roks.jpg": "CC-BY-SA-3.0 (Jasper Roks)",
    "Infinite-Sea_by_Aury88.jpg": "CC-BY-SA-3.0 (Aury88)",
    "Painting-Colors_by__herobrine7gamer.jpg": "CC-BY-SA-3.0 (HEROBRINE7GAMER)",
    "Picture_0B_by_freespace.jpg": "CC-BY-4.0 (Trevor Freespace)",
    "Picture_1A_by_freespace.jpg": "CC-BY-4.0 (Trevor Freespace)",
    "Wine_by_Jakkub_Mede.jpg": "CC-BY-4.0 (Jakub Mede)",
    "aitzgorri_by_Aitzol_Berasategi.jpg": "CC-BY-4.0 (Aitzol Berasategi)",
    "analogpattern_by_Peter_Nerlich.jpg": "CC-BY-SA-4.0 (Peter Nerlich)",
    "free_by_Peter_Nerlich.jpg": "CC-BY-SA-4.0 (Peter Nerlich)",
    "friends_by_Aitzol_Berasategi.jpg": "CC-BY-4.0 (Aitzol Berasategi)",
    "greentock_by_Peter_Nerlich.jpg": "CC-BY-SA-4.0 (Peter Nerlich)",
    "life_by_Aitzol_Berasategi.jpg": "CC-BY-4.0 (Aitzol Berasategi)",
    "picosdeeuropa_by_Aitzol_Berasategi.jpg": "CC-BY-4.0 (Aitzol Berasategi)",
    "seeding_by_Clements_Engelhardt.jpg": "CC0-1.0 (Clemens Engelhardt)",
    "sunset_by_Aitzol_Berasategi.jpg": "CC-BY-4.0 (Aitzol Berasategi)",
    "umang_by_Abhishek_Mudgal.jpg": "CC-BY-4.0 (Abhishek Mudgal)",
}
FILMS = {BUNNY: "CC-BY-3.0 (Blender Foundation)", "box.mp4": OPENCV, "cup.mp4": OPENCV}

Crop = tuple[int, int, int, int]
"""Left, top, right, bottom in the file's pixels."""


@dataclass(frozen=True)
class Still:
    """A part of a photograph, or of a film's frame `number`."""

    file: str
    crop: Crop | None = None
    number: int | None = None


@dataclass(frozen=True)
class Shot:
    """A shot from frame `first` on, every `step`th frame; the crop is given at the film's size."""

    file: str
    first: int
    crop: Crop
    step: int = 1


@dataclass(frozen=True)
class Material:
    """The material of one half of the scenes. `objects` are cut out; `textures` and `grounds` are used unchanged."""

    objects: dict[str, Still]
    plain: tuple[str, ...]
    """Objects of about one colour."""
    grounds: tuple[Still, ...]
    textures: tuple[Still, ...]
    shots: tuple[Shot, ...]
    """Shots to put things into: nothing large moves in their middle."""


SEEN = Material(
    objects={
        "bowl": Still("Picture_0B_by_freespace.jpg", (400, 100, 2572, 1740)),
        "fig": Still("Picture_0B_by_freespace.jpg", (950, 500, 1900, 1400)),
        "parakeet": Still("free_by_Peter_Nerlich.jpg", (600, 1100, 2000, 1950)),
        "dandelion": Still("seeding_by_Clements_Engelhardt.jpg", (600, 100, 2600, 1850)),
        "bunny": Still(BUNNY, (230, 0, 800, 720), 3760),
        "bust": Still(BUNNY, (250, 0, 1150, 720), 4175),
        "butterfly": Still(BUNNY, (540, 60, 820, 310), 3300),
        "squirrel": Still(BUNNY, (780, 200, 1120, 640), 3200),
        "mouse": Still(BUNNY, (680, 280, 1100, 640), 3725),
        "box": Still("box.mp4", (60, 60, 500, 420), 266),
    },
    plain=("bowl", "fig", "dandelion", "mouse"),
    grounds=(
        Still("life_by_Aitzol_Berasategi.jpg"),
        Still("aitzgorri_by_Aitzol_Berasategi.jpg"),
        Still("Bridge_by_Sander_Klootwijk.jpg"),
        Still(BUNNY, (0, 0, 1280, 720), 3520),
    ),
    textures=(
        Still("Painting-Colors_by__herobrine7gamer.jpg"),
        Still("Picture_1A_by_freespace.jpg", (0, 0, 900, 900)),
        Still("Infinite-Sea_by_Aury88.jpg", (1000, 0, 3600, 2800)),
        Still("life_by_Aitzol_Berasategi.jpg", (200, 900, 1700, 2000)),
    ),
    shots=(Shot(BUNNY, 3748, (0, 0, 960, 720)), Shot(BUNNY, 3585, (0, 0, 960, 720)), Shot(BUNNY, 4100, (320, 0, 1280, 720))),
)

UNSEEN = Material(
    objects={
        "pouf": Still("Wine_by_Jakkub_Mede.jpg", (0, 1750, 2200, 3837)),
        "spaniel": Still("friends_by_Aitzol_Berasategi.jpg", (820, 1280, 1560, 2020)),
        "clock": Still("greentock_by_Peter_Nerlich.jpg"),
        "bird": Still(BUNNY, (700, 150, 1100, 620), 9325),
        "giant": Still(BUNNY, (150, 0, 850, 700), 8840),
        "owl": Still(BUNNY, (180, 80, 700, 640), 9110),
        "fox": Still(BUNNY, (160, 0, 1180, 720), 8050),
        "cup": Still("cup.mp4", (220, 60, 470, 430), 0),
    },
    plain=("pouf", "bird", "cup", "giant"),
    grounds=(
        Still("picosdeeuropa_by_Aitzol_Berasategi.jpg"),
        Still("sunset_by_Aitzol_Berasategi.jpg"),
        Still("Dragonfly_by_Bolly.jpg"),
        Still(BUNNY, (0, 0, 1280, 720), 8200),
    ),
    textures=(
        Still("analogpattern_by_Peter_Nerlich.jpg"),
        Still("umang_by_Abhishek_Mudgal.jpg"),
        Still("Fossa_by_Jasper_Roks.jpg"),
        Still("Dragonfly_by_Bolly.jpg", (300, 300, 2100, 2100)),
    ),
    shots=(Shot(BUNNY, 9280, (0, 0, 960, 720)), Shot(BUNNY, 8960, (0, 0, 960, 720)), Shot(BUNNY, 9020, (0, 0, 960, 720))),
)
HALVES = {"seen": SEEN, "unseen": UNSEEN}


class Sources:
    """Reads the files in `data` and records the used ones (`used`)."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.used: list[str] = []

    def licences(self) -> str:
        """List the licences of the files used so far."""
        return "; ".join(dict.fromkeys((PHOTOS | FILMS)[name] for name in self.used))

    def still(self, still: Still, longest: int = 1400) -> Float32Array:
        """Read the picture, its longer side `longest` pixels at most."""
        self._use(still.file)
        if still.number is None:
            picture = cv2.imread(str(self.data / "photos" / still.file))
            assert picture is not None, f"{self.data / 'photos' / still.file} cannot be read"
        else:
            picture = self._frames(still.file, [still.number])[0]
        if still.crop:
            left, top, right, bottom = still.crop
            picture = picture[top:bottom, left:right]
        scale = min(1.0, longest / max(picture.shape[:2]))
        if scale < 1:
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return (picture[..., ::-1] / np.float32(255)).astype(np.float32)

    def shot(self, shot: Shot, count: int) -> list[Float32Array]:
        """Read `count` frames of the shot, cropped."""
        self._use(shot.file)
        left, top, right, bottom = shot.crop
        frames = self._frames(shot.file, [shot.first + shot.step * n for n in range(count)])
        return [(frame[top:bottom, left:right, ::-1] / np.float32(255)).astype(np.float32) for frame in frames]

    def cutout(self, still: Still, longest: int = 700) -> Float32Array:
        """Cut out the salient object as RGBA `[h, w, 4]`, cropped to it; its colours extend beyond its edge to hide the old background."""
        picture = self.still(still, longest)
        alpha = np.clip((self._salience(picture) - 0.3) / 0.5, 0, 1)
        count, labels, stats, _ = cv2.connectedComponentsWithStats((alpha > 0.15).astype(np.uint8))
        assert count > 1, f"nothing salient in {still}"
        largest = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
        alpha = alpha * cv2.dilate(largest, np.ones((7, 7), np.uint8))
        core = cv2.erode((alpha > 0.95).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)
        weight = cv2.GaussianBlur(core, (0, 0), 4) + 1e-5
        around = cv2.GaussianBlur(picture * core[..., None], (0, 0), 4) / weight[..., None]
        colours = np.where(core[..., None] > 0, picture, np.where(weight[..., None] > 1e-3, around, picture))
        rows, columns = (np.flatnonzero(alpha.max(axis) > 0.05) for axis in (1, 0))
        whole = np.dstack([colours, alpha]).astype(np.float32)
        return np.pad(whole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], ((2, 2), (2, 2), (0, 0)))

    @cached_property
    def _network(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(self.data / "u2" / "rembg" / "u2netp.onnx", options, providers=["CPUExecutionProvider"])

    def _salience(self, picture: Float32Array) -> Float32Array:
        small = cv2.resize(picture, (320, 320), interpolation=cv2.INTER_AREA)
        given = (small / small.max() - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
        name = self._network.get_inputs()[0].name
        told = self._network.run(None, {name: given.transpose(2, 0, 1)[None].astype(np.float32)})[0][0, 0]
        told = (told - told.min()) / (told.max() - told.min())
        return np.asarray(cv2.resize(told, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC), np.float32)

    def _frames(self, film: str, numbers: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
        capture, frames = cv2.VideoCapture(str(self.data / film)), {}
        capture.set(cv2.CAP_PROP_POS_FRAMES, numbers[0])
        for number in range(numbers[0], numbers[-1] + 1):
            known, frame = capture.read()
            assert known, f"{self.data / film} has no frame {number}"
            if number in numbers:
                frames[number] = frame
        return [frames[number] for number in numbers]

    def _use(self, name: str) -> None:
        if name not in self.used:
            self.used.append(name)
