"""One edit in memory, to be tried in several ways: what a study's rows are made of."""

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
    """A row of a study on one scene: its label, the clip that a person gets `[T, H, W, 3]` uint8, the model's own output before the
    source's pixels return (None where no model drew), which later frames of the true edit it was shown, and the training steps that its
    last training took, where a study counts them."""

    label: str
    frames: torch.Tensor
    raw_frames: torch.Tensor | None = None
    reference_indices: tuple[int, ...] = ()
    steps: int | None = None


@dataclass(frozen=True)
class Trial(ABC):
    """An edit, a model and a seed. `base` are settings of the whole study; every method takes further `room.setting=value`.

    `vace` is a model to compare with, where one was given (`models/families/vace/conditioning.py`).
    """

    family: Family
    seed: int
    base_assignments: tuple[str, ...] = field(default=(), kw_only=True)
    vace: Family | None = field(default=None, kw_only=True)
    _cache: dict[str, PreparedClip] = field(default_factory=dict, kw_only=True, repr=False, compare=False)

    @abstractmethod
    def resolve_settings(self, *assignments: str) -> EditSettings:
        """The model's preset with the study's and the row's changes."""

    @abstractmethod
    def build_clip(self, settings: EditSettings, num_references: int = 0) -> Clip:
        """What a person hands over, with `references` of the edited later frames."""

    @property
    @abstractmethod
    def max_references(self) -> int:
        """How many edited later frames there are."""

    def reconstruct_true_edit(self) -> tuple[Outcome, ...]:
        """The true edit through the model's codec, where there is a true edit."""
        return ()

    def with_quantization(self, quantization: WeightFormat) -> Trial:
        """The same trial on a copy of the model whose blocks' frozen weights are kept as `base`."""
        if quantization == "full":
            return self
        family = copy.deepcopy(self.family)
        for expert in family.experts():
            quantize_blocks(expert.transformer, quantization)
        return replace(self, family=family)

    def train(self, *assignments: str, num_references: int = 0) -> int:
        """Fit a fresh LoRA: motion, then appearance if there are references. Returns the steps done."""
        settings = self.resolve_settings(*assignments)
        session = self._open_session(settings, num_references)
        return len(session.fit(session.build_stages()))

    def learn_appearance(self, num_references: int, *assignments: str) -> int:
        """Go on with the appearance stage on the LoRA as it is. Returns the steps done."""
        settings = self.resolve_settings(*assignments)
        session = self._open_session(settings, num_references)
        return len(session.fit(session.build_stages()[-1:], seed=settings.seed + 1, reset=False))

    def snapshot_lora(self) -> Callable[[], None]:
        """Remember the LoRA as it is; the function returned brings it back."""
        parameters = {(e.part, name): each for e in self.family.experts() for name, each in get_lora_parameters(e).items()}
        values = {name: parameter.detach().clone() for name, parameter in parameters.items()}

        @torch.no_grad()
        def bring_back() -> None:
            for name, parameter in parameters.items():
                parameter.copy_(values[name])

        return bring_back

    def unload_lora(self) -> None:
        """Back to the base model."""
        for expert in self.family.experts():
            remove_lora(expert)

    def generate(self, label: str, *assignments: str, num_references: int = 0) -> Outcome:
        """The edited clip with the LoRA as it is. `references` later frames were shown to it."""
        return self._generate_outcome(label, self.resolve_settings(*assignments), num_references)

    def generate_with_vace(self) -> tuple[Outcome, ...]:
        """VACE (the paper's table 2), where it was given: the edited first frame is its reference picture and opens its clip.

        It is sampled as published, at its own size, without the trigger word that nothing taught it.
        """
        if self.vace is None:
            return ()
        other = replace(self, family=self.vace, base_assignments=(*list_published_overrides(), *self.base_assignments), vace=None)
        _offload_family(self.family)
        made = other._generate_outcome("VACE", other.resolve_settings().model_copy(update={"trigger": ""}))
        _offload_family(self.vace)
        return (made,)

    def train_and_generate(self, label: str, *assignments: str, num_references: int = 0) -> Outcome:
        """Train, then generate, with the same settings."""
        self.train(*assignments, num_references=num_references)
        return self.generate(label, *assignments, num_references=num_references)

    def copy_source(self) -> Outcome:
        """The source as it is: input similarity 1."""
        return Outcome("no edit", self.build_clip(self.resolve_settings()).video.frames)

    def repeat_first_frame(self) -> Outcome:
        """The edited first frame, still: CLIP score 1."""
        clip = self.build_clip(self.resolve_settings())
        return Outcome("first frame, frozen", clip.first_frame.expand_as(clip.video.frames).contiguous())

    def run_flow_warp(self) -> Outcome:
        """The edited first frame carried along by optical flow."""
        return self._run_baseline(FLOW_WARP)

    def run_colour_map(self) -> Outcome:
        """One map of colours from the first frame to all."""
        return self._run_baseline(COLOUR_MAP)

    def run_moving_layer(self) -> Outcome:
        """What the first frame changes, moved as one piece."""
        return self._run_baseline(MOVING_LAYER)

    def propagate_edit(self, num_references: int = 0) -> Outcome:
        """The explained edit, which no diffusion model drew: the preview."""
        settings = self.resolve_settings("method.hint=explained")
        session = self._open_session(settings, num_references)
        label = f"{PROPAGATED_EDIT}, {num_references} references" if num_references else PROPAGATED_EDIT
        return Outcome(label, paste_prediction(session.inputs, session.prepare()), None, tuple(session.inputs.references))

    def select_best(self, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        """The best of these by what is true, where there is a true edit: what a person would have who could choose afterwards."""
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
    """A scene with truth."""

    edit: TrueEdit

    def resolve_settings(self, *assignments: str) -> EditSettings:
        """The model's preset with the study's and the row's changes."""
        tables = {"input": {"source": "scene", "first_frame": "scene"}, "seed": self.seed, "model": self.family.name}
        # The paper's region; the model is judged, not what compositing makes of it; `detail` is a study of its own.
        return resolve_settings(
            tables, ("masks.shape=box", "compositing.crop=false", "compositing.detail=false", *self.base_assignments, *assignments)
        )

    def build_clip(self, settings: EditSettings, num_references: int = 0) -> Clip:
        """The scene as a person would hand it over: source, edited first frame, loose box, and true edited later frames."""
        edit, masks = self.edit, settings.masks
        region = shape_mask(edit.mask, masks.shape, masks.expand, masks.smooth)
        video = Video(edit.source, Fraction(8), tuple(i / 8 for i in range(len(edit.source))))
        return Clip(video, region, edit.truth[0], {n: edit.truth[n] for n in select_reference_indices(len(edit.truth), num_references)}, {})

    @property
    def max_references(self) -> int:
        """Every frame after the first."""
        return len(self.edit.truth) - 1

    def reconstruct_true_edit(self) -> tuple[Outcome, ...]:
        """The true edit through the model's codec: what a perfect model would reach."""
        settings = self.resolve_settings()
        clip = self.build_clip(settings)
        true_clip = replace(clip, video=replace(clip.video, frames=self.edit.truth))
        prepared = Session(self.family, true_clip, settings).prepare()
        session, canvas = Session(self.family, clip, settings, prepared=prepared), prepared.canvas
        encoded = self.family.encode_sample(build_motion_sample(canvas.source, torch.zeros_like(canvas.edit_mask)))
        assert encoded.target is not None
        return (self._composite_outcome("truth through the codec", session, self.family.decode(encoded.target)),)

    def propagate_edit(self, num_references: int = 0) -> Outcome:
        """The explained edit, which no diffusion model drew: the preview."""
        settings = self.resolve_settings("method.hint=explained")
        session = self._open_session(settings, num_references)
        label = f"{PROPAGATED_EDIT}, {num_references} references" if num_references else PROPAGATED_EDIT
        return Outcome(label, paste_prediction(session.inputs, session.prepare()), None, tuple(session.inputs.references))

    def select_best(self, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        """The one that is nearest to the true edit in the region, over every frame but the first."""
        box = self.build_clip(self.resolve_settings()).edit_mask.frames

        def nearness(outcome: Outcome) -> float:
            return psnr(outcome.frames[1:], self.edit.truth[1:], box[1:])

        return (replace(max(outcomes, key=nearness), label=BEST_BASELINE),)


def _offload_family(family: Family) -> None:
    """Two models of real size do not fit on a device together."""
    family.device_manager.offload()


def select_reference_indices(num_frames: int, num_references: int) -> Sequence[int]:
    """Which of `count` frames are edited too: evenly spread behind the first, the last among them."""
    return [round(n * (num_frames - 1) / num_references) for n in range(1, num_references + 1)]
