"""A session: one edit with one loaded model, from its inputs to its frames. The only place that knows the order of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from lora_edit.config import EditSettings
from lora_edit.generation.windows import generate_clip
from lora_edit.inputs import Clip
from lora_edit.loras.extra_loras import ExtraLora, activate_loras
from lora_edit.models.family import Family
from lora_edit.oom_fallback import retry_with_less_memory
from lora_edit.prepared_clip import PreparedClip, composite_output, prepare_clip
from lora_edit.reporting import Reporter, SilentReporter
from lora_edit.run import Run
from lora_edit.train_run import train_or_load_lora
from lora_edit.training.dataset import build_training_stages
from lora_edit.training.experts import fit_experts, set_strengths
from lora_edit.training.loop import Stage
from lora_edit.types import Video


class Session:
    """Prepares, trains, generates and composites one edit: `Session(model, inputs, settings)`, then `train`, `generate`, `composite`.

    `inputs` are the clip with its region and edited frames at the source's size. Several sessions may share one loaded `model`: its LoRA is
    that of the session that trained last. `short_window` is the number of frames that training may see at a time when memory runs out
    (paper, appendix C; None where the model's record gives none).
    """

    def __init__(
        self,
        model: Family,
        inputs: Clip,
        settings: EditSettings,
        reporter: Reporter | None = None,
        short_window: int | None = None,
        prepared: PreparedClip | None = None,
    ) -> None:
        self.model, self.inputs, self.settings = model, inputs, settings
        self.reporter = reporter or SilentReporter()
        self.short_window = short_window
        self._prepared = prepared

    def prepare(self) -> PreparedClip:
        """Bring the inputs to the model's size, once; predictions are computed when they are first used."""
        if self._prepared is None:
            self._prepared = prepare_clip(self.model, self.inputs, self.settings, self.reporter)
        return self._prepared

    def build_stages(self) -> list[Stage]:
        """Encode the training samples: the motion stage and, with edited later frames, the appearance stage."""
        return build_training_stages(self.model, self.prepare(), self.settings)

    def train(self, run: Run | None = None, *, accept_saved: bool = False) -> None:
        """Train the LoRA: motion, then appearance.

        With a `run`, losses, checkpoints and the LoRA file are kept in its folder: training resumes where it stopped, and a LoRA that was
        trained with the same inputs, settings and weights is loaded instead (any LoRA with `accept_saved`). Without a run the LoRA lives in
        the model only, and nothing is moved when memory runs out.

        Raises `TrainingDivergedError`, and with a run `ModelError` when the device's memory does not suffice.
        """
        if run is None:
            self.fit(self.build_stages())
        else:
            train_or_load_lora(
                run, self.settings, self.inputs, self.model, self.reporter, self.prepare, accept_saved, short_window=self.short_window
            )

    def fit(self, stages: Sequence[Stage], *, seed: int | None = None, reset: bool = True) -> list[float]:
        """Fit the model's LoRA to `stages` in memory and return the losses; without `reset` the present LoRA is trained further."""
        settings = self.settings
        seed = settings.seed if seed is None else seed
        return fit_experts(self.model, stages, settings.training, settings.lora, seed, reset=reset)

    def generate(self, seed: int | None = None, extra_loras: Sequence[ExtraLora] = (), stage: str = "generate") -> torch.Tensor:
        """Sample the edited clip at the model's size, `[3, T, h, w]` in [-1, 1], with the model's LoRA and any `extra_loras`.

        `stage` names the step in the progress report.
        Raises `ModelError` when the device's memory does not suffice.
        """
        settings = self.settings
        generate = partial(
            generate_clip,
            self.model,
            self.prepare(),
            seed=settings.seed if seed is None else seed,
            on_step=partial(self.reporter.step, stage),
            on_note=self.reporter.note,
        )
        set_strengths(self.model, settings.generation.lora_strength)
        with activate_loras(self.model, list(extra_loras)):
            return retry_with_less_memory(self.model, settings, generate, self.reporter.note)  # training windows do not matter here

    def composite(self, pixels: torch.Tensor, settings: EditSettings | None = None) -> Video:
        """Composite generated `pixels` `[3, T, h, w]` into the source; returns the edited clip at the source's size.

        `settings` replaces the session's compositing settings.
        """
        frames = composite_output(self.inputs, self.prepare(), pixels, settings or self.settings, self.reporter)
        return replace(self.inputs.video, frames=torch.stack(list(frames)))
