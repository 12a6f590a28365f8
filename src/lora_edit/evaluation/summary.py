"""One result's numbers, measured together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lora_edit.evaluation.checks import require_pixels, require_same_shape
from lora_edit.evaluation.flicker import flicker
from lora_edit.evaluation.leak import leak
from lora_edit.evaluation.psnr import psnr
from lora_edit.evaluation.ssim import ssim
from lora_edit.types import EditMask, Size, Video

DIGITS = 4


@dataclass(frozen=True)
class Evaluation:
    """What was measured; None where there was nothing to measure.

    PSNR in dB (infinite when every pixel is equal), SSIM in [-1, 1], flicker in levels of 255, leak in [0, 1]. The region is
    compared with the truth where one was given, else with the source; the background, everything else, with the source.
    """

    num_frames: int
    size: Size
    fps: float
    region_psnr: float
    region_ssim: float
    background_psnr: float | None
    background_ssim: float | None
    flicker: float | None
    leak: float | None = None

    def to_json(self) -> dict[str, object]:
        """The record that `lora-edit evaluate --json` prints: JSON knows no infinity, so that a PSNR of equal pixels is null.

        `background_exact` is there, and true, when that is why the background's is null. The region is always measured: there
        null means equal. `leak` is there when it was measured.
        """
        record: dict[str, object] = {
            "num_frames": self.num_frames,
            "size": str(self.size),
            "fps": _round_finite(self.fps),
            "region_psnr": _round_finite(self.region_psnr),
            "region_ssim": _round_finite(self.region_ssim),
            "background_psnr": _round_finite(self.background_psnr),
            "background_ssim": _round_finite(self.background_ssim),
            "flicker": _round_finite(self.flicker),
        }
        if self.leak is not None:
            record["leak"] = _round_finite(self.leak)
        if self.background_psnr == math.inf:
            record["background_exact"] = True
        return record


def evaluate(
    result: Video,
    source: Video,
    truth: Video | None = None,
    mask: EditMask | None = None,
    first_frame: torch.Tensor | None = None,
) -> Evaluation:
    """Measure `result`: its region (the whole frame without a `mask`), its background, flicker, and leak.

    Flicker is the region's. Leak needs the mask and the edited `first_frame` `[H, W, 3]` uint8, and a region in the first frame.
    Raises `VideoError` when clips differ in size or frame count, `MaskError` when the mask does not fit or is empty.
    """
    require_same_shape(result.frames, source.frames, "source")
    if truth is not None:
        require_same_shape(result.frames, truth.frames, "truth")
    region = None if mask is None else mask.frames
    if region is not None:
        require_pixels(region, result.frames)
    background = None if region is None or region.all() else ~region
    right = source if truth is None else truth
    return Evaluation(
        num_frames=result.num_frames,
        size=result.size,
        fps=float(result.fps),
        region_psnr=psnr(result.frames, right.frames, region),
        region_ssim=ssim(result.frames, right.frames, region),
        background_psnr=None if background is None else psnr(result.frames, source.frames, background),
        background_ssim=None if background is None else ssim(result.frames, source.frames, background),
        flicker=_measure_flicker(result.frames, region),
        leak=_measure_leak(result.frames, source.frames, first_frame, region),
    )


def _measure_flicker(frames: torch.Tensor, region: torch.Tensor | None) -> float | None:
    if len(frames) < 2 or (region is not None and not region[1:].any()):
        return None
    return _nan_to_none(flicker(frames, region))


def _measure_leak(
    frames: torch.Tensor, source: torch.Tensor, first_frame: torch.Tensor | None, region: torch.Tensor | None
) -> float | None:
    if first_frame is None or region is None or not region[0].any():
        return None
    return _nan_to_none(leak(frames, source, first_frame, region))


def _nan_to_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _round_finite(value: float | None) -> float | None:
    return round(value, DIGITS) if value is not None and math.isfinite(value) else None
