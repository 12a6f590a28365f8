"""Predictions inside the edit region at the model's size: of the edited clip for generation, of the source for training.

`method.hint` chooses: nothing (the paper's method), frame 0 moved with the region's box, frame 0 moved along dense flow, or the explained
edit (`propagation/`, ours). The prediction at the source's size is also what compositing restores detail from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import torch
import torch.nn.functional as F

from lora_edit.canvas import Canvas
from lora_edit.compositing.crop import crop_frames
from lora_edit.conditioning.first_frame_hint import move_with_box
from lora_edit.conditioning.sample import Hint
from lora_edit.inputs import Clip
from lora_edit.propagation.predict import PredictedFrame, Prediction, Propagation
from lora_edit.reporting import Reporter
from lora_edit.video.flow import chain_flow_to_first, sample_image
from lora_edit.video.ranges import to_frames, to_signed
from lora_edit.video.resize import resize_frames

ASSUMED_ERROR = 0.25
"""Expected error of hints that come without one, in [-1, 1]."""


class Hints:
    """Predictions of one clip on one canvas, computed on first use."""

    def __init__(self, clip: Clip, canvas: Canvas, kind: str, confidence: bool = True, reporter: Reporter | None = None) -> None:
        self.clip, self.canvas, self.kind, self.confidence, self.reporter = clip, canvas, kind, confidence, reporter

    @property
    def edited_frames(self) -> dict[int, torch.Tensor]:
        """Edited frames `[H, W, 3]` by number, within the canvas's crop."""
        known = {0: self.clip.first_frame, **self.clip.references, **self.clip.anchors}
        return {n: crop_frames(p[None], self.canvas.crop)[0] for n, p in known.items()}

    @cached_property
    def propagation(self) -> Propagation:
        """The propagation of the edit to all frames, at the source's size within the canvas's crop."""

        def on_frame(done: int, total: int) -> None:
            if self.reporter:
                self.reporter.step("predict", done + 1, total)

        frames, region = (crop_frames(each, self.canvas.crop) for each in (self.clip.video.frames, self.clip.edit_mask.frames))
        if self.reporter:
            self.reporter.step("motions", 0, 1)
        return Propagation(frames, self.edited_frames, region, on_frame)

    @cached_property
    def prediction(self) -> Prediction:
        """The prediction of the edited clip at the source's size within the crop."""
        return Prediction.from_frames(self.propagation.predict_frames())

    @cached_property
    def generation_hint(self) -> Hint | None:
        """The hint of the edited clip, for generation."""
        if self.kind == "explained":
            return self._build_hint(self.prediction)
        return self._move_first_frame(self.canvas.first_frame)

    @cached_property
    def training_hint(self) -> Hint | None:
        """The hint of the source from its frame 0, for training: it contains nothing of the hidden pixels but their motion."""
        if self.kind != "explained":
            return self._move_first_frame(self.canvas.source[:, 0])
        return self._build_hint(Prediction.from_frames(self._report_frames(self.propagation.predict_source_frames())))

    def _report_frames(self, frames: Iterable[PredictedFrame]) -> Iterator[PredictedFrame]:
        """Report each predicted frame to the reporter as it is computed."""
        for number, frame in enumerate(frames):
            if self.reporter:
                self.reporter.step("prepare", number + 1, self.clip.video.num_frames)
            yield frame

    def build_reference_hint(self, number: int) -> Hint | None:
        """Build the hint `[3, 2, h, w]` of frame 0 and of the edited frame `number`, the latter predicted from the other edited frames."""
        if self.kind != "explained":
            edited = self.generation_hint
            return edited and edited.select_frames(torch.tensor([0, number]))
        return self._build_hint(
            Prediction.from_frames([self.propagation.predict_frame(0), self.propagation.predict_frame(number, excluded_key=number)])
        )

    def _build_hint(self, prediction: Prediction) -> Hint:
        size = self.canvas.size
        pixels = to_signed(resize_frames(prediction.frames, size))
        errors = F.interpolate(prediction.errors[:, None], (size.height, size.width), mode="bilinear", align_corners=False)
        small = errors.transpose(0, 1) / 127.5
        return Hint(pixels, small if self.confidence else torch.full_like(small, ASSUMED_ERROR))

    def _move_first_frame(self, first_frame: torch.Tensor) -> Hint | None:
        """Move frame 0 `[3, h, w]` with the region's box or along the optical flow, as `method.hint` says."""
        if self.kind == "none":
            return None
        if self.kind == "box":
            pixels = move_with_box(first_frame, self.canvas.boxes)
        else:
            picture = to_frames(first_frame[:, None])[0].numpy()
            moved: Iterable[torch.Tensor] = (
                torch.from_numpy(sample_image(picture, p)) for p in chain_flow_to_first(to_frames(self.canvas.source))
            )
            pixels = to_signed(torch.stack([m.round().clamp(0, 255).to(torch.uint8) for m in moved]))
        return Hint(pixels, torch.full_like(pixels[:1], ASSUMED_ERROR))
