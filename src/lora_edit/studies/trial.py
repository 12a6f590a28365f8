"""A trial: one edit in memory, from which a study produces its rows."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import torch

from lora_edit.conditioning.method import build_motion_sample
from lora_edit.config import EditSettings, resolve_settings
from lora_edit.evaluation.psnr import psnr
from lora_edit.inputs import Clip
from lora_edit.masks.shapes import shape_mask
from lora_edit.models.families.vace.record import list_published_overrides
from lora_edit.models.family import Family
from lora_edit.models.runtime.quantization import WeightFormat, quantize_blocks
from lora_edit.prepared_clip import PreparedClip, paste_prediction
from lora_edit.propagation.baselines import BASELINES, COLOUR_MAP, FLOW_WARP, MOVING_LAYER
from lora_edit.session import Session
from lora_edit.studies.scenes import TrueEdit
from lora_edit.training.lora import get_lora_parameters, remove_lora
from lora_edit.types import Video

BEST_BASELINE = "best of the three (per scene)"
PROPAGATED_EDIT = "explained edit, no model (ours)"


@dataclass(frozen=True)
class Outcome:
    """A row of a study on one scene.

    - `label`: the label of the row.
    - `frames`: the finished clip `[T, H, W, 3]` uint8.
    - `raw_frames`: the model's own output before compositing restores the source's pixels; None without a model.
    - `reference_indices`: the later frames of the true edit that were used as references.
    - `steps`: the steps of the last training, in studies that compare them.
    """

    label: str
    frames: torch.Tensor
    raw_frames: torch.Tensor | None = None
    reference_indices: tuple[int, ...] = ()
    steps: int | None = None


@dataclass(frozen=True)
class Trial(ABC):
    """An edit, a model and a seed.

    `base_assignments` are settings of the whole study; every method takes further assignments `section.setting=value`. `vace` is an
    optional model to compare with (`models/families/vace/conditioning.py`).
    """

    family: Family
    seed: int
    base_assignments: tuple[str, ...] = field(default=(), kw_only=True)
    vace: Family | None = field(default=None, kw_only=True)
    _cache: dict[str, PreparedClip] = field(default_factory=dict, kw_only=True, repr=False, compare=False)

    @abstractmethod
    def resolve_settings(self, *assignments: str) -> EditSettings:
        """Resolve the model's preset with the assignments of the study and of the row."""

    @abstractmethod
    def build_clip(self, settings: EditSettings, num_references: int = 0) -> Clip:
        """Build the input of the edit, with `num_references` of the edited later frames."""

    @property
    @abstractmethod
    def max_references(self) -> int:
        """The number of edited later frames that are available."""

    def reconstruct_true_edit(self) -> tuple[Outcome, ...]:
        """Encode and decode the true edit with the model's codec; empty without a true edit."""
        return ()

    def with_quantization(self, quantization: WeightFormat) -> Trial:
        """Return this trial on a copy of the model whose frozen block weights are stored as `quantization`."""
        if quantization == "full":
            return self
        family = copy.deepcopy(self.family)
        for expert in family.experts():
            quantize_blocks(expert.transformer, quantization)
        return replace(self, family=family)

    def train(self, *assignments: str, num_references: int = 0) -> int:
        """Train a new LoRA: motion, then appearance if there are references. Returns the number of steps."""
        settings = self.resolve_settings(*assignments)
        session = self._open_session(settings, num_references)
        return len(session.fit(session.build_stages()))

    def learn_appearance(self, num_references: int, *assignments: str) -> int:
        """Continue training the current LoRA with the appearance stage. Returns the number of steps."""
        settings = self.resolve_settings(*assignments)
        session = self._open_session(settings, num_references)
        return len(session.fit(session.build_stages()[-1:], seed=settings.seed + 1, reset=False))

    def snapshot_lora(self) -> Callable[[], None]:
        """Copy the current LoRA and return a function that restores it."""
        parameters = {(e.part, name): each for e in self.family.experts() for name, each in get_lora_parameters(e).items()}
        values = {name: parameter.detach().clone() for name, parameter in parameters.items()}

        @torch.no_grad()
        def restore_lora() -> None:
            for name, parameter in parameters.items():
                parameter.copy_(values[name])

        return restore_lora

    def unload_lora(self) -> None:
        """Remove the LoRA from the model."""
        for expert in self.family.experts():
            remove_lora(expert)

    def generate(self, label: str, *assignments: str, num_references: int = 0) -> Outcome:
        """Generate the edited clip with the current LoRA and `num_references` edited later frames."""
        return self._generate_outcome(label, self.resolve_settings(*assignments), num_references)

    def generate_with_vace(self) -> tuple[Outcome, ...]:
        """Generate the edit with VACE (the paper's table 2); empty without a VACE.

        The edited first frame is both the reference picture and the first frame of the clip. VACE is sampled as published, at its own
        size, without the trigger word, on which it was not trained.
        """
        if self.vace is None:
            return ()
        vace_trial = replace(self, family=self.vace, base_assignments=(*list_published_overrides(), *self.base_assignments), vace=None)
        _offload_family(self.family)
        outcome = vace_trial._generate_outcome("VACE", vace_trial.resolve_settings().model_copy(update={"trigger": ""}))
        _offload_family(self.vace)
        return (outcome,)

    def train_and_generate(self, label: str, *assignments: str, num_references: int = 0) -> Outcome:
        """Train and generate with the same settings."""
        self.train(*assignments, num_references=num_references)
        return self.generate(label, *assignments, num_references=num_references)

    def copy_source(self) -> Outcome:
        """Return the source unchanged; its input similarity is 1."""
        return Outcome("no edit", self.build_clip(self.resolve_settings()).video.frames)

    def repeat_first_frame(self) -> Outcome:
        """Repeat the edited first frame; its CLIP score is 1."""
        clip = self.build_clip(self.resolve_settings())
        return Outcome("first frame, frozen", clip.first_frame.expand_as(clip.video.frames).contiguous())

    def run_flow_warp(self) -> Outcome:
        """Warp the edited first frame along the optical flow."""
        return self._run_baseline(FLOW_WARP)

    def run_colour_map(self) -> Outcome:
        """Apply the colour map of the first frame to all frames."""
        return self._run_baseline(COLOUR_MAP)

    def run_moving_layer(self) -> Outcome:
        """Move the changed pixels of the first frame as one layer."""
        return self._run_baseline(MOVING_LAYER)

    def propagate_edit(self, num_references: int = 0) -> Outcome:
        """Propagate the edit without a diffusion model, as the preview does."""
        settings = self.resolve_settings("method.hint=explained")
        session = self._open_session(settings, num_references)
        label = f"{PROPAGATED_EDIT}, {num_references} references" if num_references else PROPAGATED_EDIT
        return Outcome(label, paste_prediction(session.inputs, session.prepare()), None, tuple(session.inputs.references))

    def select_best(self, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        """Select the outcome nearest to the true edit, an oracle that a person does not have; empty without a true edit."""
        return ()

    def _run_baseline(self, name: str) -> Outcome:
        clip = self.build_clip(self.resolve_settings())
        return Outcome(name, BASELINES[name](clip.video.frames, clip.first_frame, clip.edit_mask))

    def _generate_outcome(self, label: str, settings: EditSettings, num_references: int = 0) -> Outcome:
        session = self._open_session(settings, num_references)
        return self._composite_outcome(label, session, session.generate())

    def _open_session(self, settings: EditSettings, num_references: int = 0) -> Session:
        """Open a session on the trial's model. Rows with the same preparation share it, since a prediction takes seconds."""
        clip = self.build_clip(settings, num_references)
        parts = (self.family.name, num_references, settings.masks, settings.method.hint, settings.method.hint_confidence)
        key = repr((*parts, settings.compositing.crop, settings.compositing.zoom, settings.compositing.context))
        session = Session(self.family, clip, settings, prepared=self._cache.get(key))
        self._cache[key] = session.prepare()
        return session

    def _composite_outcome(self, label: str, session: Session, pixels: torch.Tensor) -> Outcome:
        compositing = session.settings.compositing.model_copy(update={"enabled": False, "detail": False})
        raw_settings = session.settings.model_copy(update={"compositing": compositing})
        frames, raw = session.composite(pixels).frames, session.composite(pixels, raw_settings).frames
        return Outcome(label, frames, raw, tuple(session.inputs.references))


@dataclass(frozen=True)
class SceneTrial(Trial):
    """A trial on a scene with a true edit."""

    edit: TrueEdit

    def resolve_settings(self, *assignments: str) -> EditSettings:
        """Resolve the model's preset with the assignments of the study and of the row."""
        tables = {"input": {"source": "scene", "first_frame": "scene"}, "seed": self.seed, "model": self.family.name}
        # The paper's region. Scores are of the model without the crop and the detail of compositing; `detail` has its own study.
        return resolve_settings(
            tables, ("masks.shape=box", "compositing.crop=false", "compositing.detail=false", *self.base_assignments, *assignments)
        )

    def build_clip(self, settings: EditSettings, num_references: int = 0) -> Clip:
        """Build the input of the edit: source, edited first frame, loose box, and edited later frames from the true edit."""
        edit, masks = self.edit, settings.masks
        region = shape_mask(edit.mask, masks.shape, masks.expand, masks.smooth)
        video = Video(edit.source, Fraction(8), tuple(i / 8 for i in range(len(edit.source))))
        return Clip(video, region, edit.truth[0], {n: edit.truth[n] for n in select_reference_indices(len(edit.truth), num_references)}, {})

    @property
    def max_references(self) -> int:
        """The number of frames after the first."""
        return len(self.edit.truth) - 1

    def reconstruct_true_edit(self) -> tuple[Outcome, ...]:
        """Encode and decode the true edit with the model's codec, the upper bound for a perfect model."""
        settings = self.resolve_settings()
        clip = self.build_clip(settings)
        true_clip = replace(clip, video=replace(clip.video, frames=self.edit.truth))
        prepared = Session(self.family, true_clip, settings).prepare()
        session, canvas = Session(self.family, clip, settings, prepared=prepared), prepared.canvas
        encoded = self.family.encode_sample(build_motion_sample(canvas.source, torch.zeros_like(canvas.edit_mask)))
        assert encoded.target is not None
        return (self._composite_outcome("truth through the codec", session, self.family.decode(encoded.target)),)

    def propagate_edit(self, num_references: int = 0) -> Outcome:
        """Propagate the edit without a diffusion model, as the preview does."""
        settings = self.resolve_settings("method.hint=explained")
        session = self._open_session(settings, num_references)
        label = f"{PROPAGATED_EDIT}, {num_references} references" if num_references else PROPAGATED_EDIT
        return Outcome(label, paste_prediction(session.inputs, session.prepare()), None, tuple(session.inputs.references))

    def select_best(self, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        """Select the outcome with the highest region PSNR against the true edit, over every frame but the first."""
        box = self.build_clip(self.resolve_settings()).edit_mask.frames

        def compute_region_psnr(outcome: Outcome) -> float:
            return psnr(outcome.frames[1:], self.edit.truth[1:], box[1:])

        return (replace(max(outcomes, key=compute_region_psnr), label=BEST_BASELINE),)


def _offload_family(family: Family) -> None:
    """Move a model to the CPU, because two models of real size do not fit on a device together."""
    family.device_manager.offload()


def select_reference_indices(num_frames: int, num_references: int) -> Sequence[int]:
    """Select `num_references` of `num_frames` frames, evenly spaced after the first and including the last."""
    return [round(n * (num_frames - 1) / num_references) for n in range(1, num_references + 1)]
