"""Evaluation of a result from files, for the command and the Python interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from lora_edit.evaluation import learned_metrics, summary
from lora_edit.evaluation.learned_metrics import Networks
from lora_edit.evaluation.metric_inputs import MetricInputs
from lora_edit.inputs import read_run_frame_rate
from lora_edit.masks.files import read_mask
from lora_edit.types import EditMask, Video
from lora_edit.video.read import read_image, read_video


@dataclass(frozen=True)
class EvaluationFiles:
    """A result and what it is compared with. `frame_rate` is that of the result, or of the source where only that has one."""

    result: Video
    source: Video
    truth: Video | None
    mask: EditMask | None
    first_frame: torch.Tensor | None
    frame_rate: Fraction | None

    def measure(self, clip: Video, networks: Networks, learned: Sequence[str]) -> dict[str, Any]:
        """Measure `clip`, the result or another clip of the same edit; returns the values by name."""
        inputs = MetricInputs(clip, self.source, self.truth, self.mask, self.first_frame)
        values = summary.evaluate(inputs).to_json() | {"fps": self.frame_rate and round(float(self.frame_rate), 4)}
        return values | learned_metrics.measure_learned_metrics(networks, tuple(learned), inputs)


def read_evaluation_files(result: Path, source: Path, truth: Path | None, mask: Path | None, first_frame: Path | None) -> EvaluationFiles:
    """Read the clips of an evaluation. Raises `InputError` and its subclasses."""
    result_clip, source_clip = read_video(result), read_video(source)
    return EvaluationFiles(
        result_clip,
        source_clip,
        None if truth is None else read_video(truth),
        None if mask is None else read_mask(mask, result_clip.num_frames, result_clip.size),
        None if first_frame is None else read_image(first_frame),
        _read_frame_rate(result, result_clip) or _read_frame_rate(source, source_clip),
    )


def _read_frame_rate(path: Path, video: Video) -> Fraction | None:
    """Return the frame rate of a clip; for a folder of frames that of its run, or None outside of a run."""
    return read_run_frame_rate(path) if path.is_dir() else video.fps
