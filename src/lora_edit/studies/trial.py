"""One edit in memory, to be tried in several ways: what a study's rows are made of."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import torch

from lora_edit.conditioning.method import motion
from lora_edit.config import EditSettings, resolve
from lora_edit.evaluation.psnr import psnr
from lora_edit.inputs import Clip
from lora_edit.masks.shapes import shape_mask
from lora_edit.models.catalog.vace import published
from lora_edit.models.experts import StagedWan
from lora_edit.models.family import Family
from lora_edit.models.storage import Storage, store_blocks
from lora_edit.propagation.baselines import BASELINES, COLOUR_MAP, FLOW_WARP, MOVING_LAYER
from lora_edit.samples import PreparedClip, finish, generate_windows, predicted_clip, prepare, training_stages
from lora_edit.studies.scenes import TrueEdit
from lora_edit.training.loop import Stage, fit
from lora_edit.training.lora import add_lora, lora_parameters, remove_lora
from lora_edit.types import Video

BEST = "best of the three (per scene)"


PREDICTED = "explained edit, no model (ours)"


@dataclass(frozen=True)
class Outcome:
    """A row of a study on one scene: its label, the clip that a person gets `[T, H, W, 3]` uint8, the model's own output before the
    source's pixels return (None where no model drew), which later frames of the true edit it was shown, and the training steps that its
    last training took, where a study counts them."""

    label: str
    frames: torch.Tensor
    raw: torch.Tensor | None = None
    shown: tuple[int, ...] = ()
    steps: int | None = None


@dataclass(frozen=True)
class Trial(ABC):
    """An edit, a model and a seed. `base` are settings of the whole study; every method takes further `room.setting=value`.

    `vace` is a model to compare with, where one was given (`models/vace.py`).
    """

    family: Family
    seed: int
    base: tuple[str, ...] = field(default=(), kw_only=True)
    vace: Family | None = field(default=None, kw_only=True)
    _cache: dict[str, PreparedClip] = field(default_factory=dict, kw_only=True, repr=False, compare=False)

    @abstractmethod
    def settings(self, *assignments: str) -> EditSettings:
        """The model's preset with the study's and the row's changes."""

    @abstractmethod
    def clip(self, settings: EditSettings, references: int = 0) -> Clip:
        """What a person hands over, with `references` of the edited later frames."""

    @property
    @abstractmethod
    def later(self) -> int:
        """How many edited later frames there are."""

    def through_codec(self) -> tuple[Outcome, ...]:
        """The true edit through the model's codec, where there is a true edit."""
        return ()

    def kept_as(self, base: Storage) -> Trial:
        """The same trial on a copy of the model whose blocks' frozen weights are kept as `base`."""
        if base == "full":
            return self
        family = copy.deepcopy(self.family)
        for expert in family.experts():
            store_blocks(expert.transformer, base)
        return replace(self, family=family)

    def train(self, *assignments: str, references: int = 0) -> int:
        """Fit a fresh LoRA: motion, then appearance if there are references. Returns the steps done."""
        settings = self.settings(*assignments)
        stages = training_stages(self.family, self._prepared(settings, references), settings)
        for expert in self.family.experts():
            add_lora(expert, settings.lora, settings.seed)
        return self._fit(stages, settings, settings.seed)

    def learn_appearance(self, references: int, *assignments: str) -> int:
        """Go on with the appearance stage on the LoRA as it is. Returns the steps done."""
        settings = self.settings(*assignments)
        last = training_stages(self.family, self._prepared(settings, references), settings)[-1:]
        return self._fit(last, settings, settings.seed + 1)

    def _fit(self, stages: Sequence[Stage], settings: EditSettings, seed: int) -> int:
        done = [fit(e, lora_parameters(e), stages, settings.training, seed, None, "", lambda *_: None) for e in self.family.experts()]
        return sum(len(losses) for stages_losses in done for losses in stages_losses)

    def keep(self) -> Callable[[], None]:
        """Remember the LoRA as it is; the function returned brings it back."""
        parameters = {(e.part, name): each for e in self.family.experts() for name, each in lora_parameters(e).items()}
        values = {name: parameter.detach().clone() for name, parameter in parameters.items()}

        @torch.no_grad()
        def bring_back() -> None:
            for name, parameter in parameters.items():
                parameter.copy_(values[name])

        return bring_back

    def forget(self) -> None:
        """Back to the base model."""
        for expert in self.family.experts():
            remove_lora(expert)

    def generate(self, label: str, *assignments: str, references: int = 0) -> Outcome:
        """The edited clip with the LoRA as it is. `references` later frames were shown to it."""
        return self._generated(label, self.settings(*assignments), references)

    def reference_guided(self) -> tuple[Outcome, ...]:
        """VACE (the paper's table 2), where it was given: the edited first frame is its reference picture and opens its clip.

        It is sampled as published, at its own size, without the trigger word that nothing taught it.
        """
        if self.vace is None:
            return ()
        other = replace(self, family=self.vace, base=(*published(), *self.base), vace=None)
        _make_room(self.family)
        made = other._generated("VACE", other.settings().model_copy(update={"trigger": ""}))
        _make_room(self.vace)
        return (made,)

    def edited(self, label: str, *assignments: str, references: int = 0) -> Outcome:
        """Train, then generate, with the same settings."""
        self.train(*assignments, references=references)
        return self.generate(label, *assignments, references=references)

    def no_edit(self) -> Outcome:
        """The source as it is: input similarity 1."""
        return Outcome("no edit", self.clip(self.settings()).video.frames)

    def frozen(self) -> Outcome:
        """The edited first frame, still: CLIP score 1."""
        clip = self.clip(self.settings())
        return Outcome("first frame, frozen", clip.first_frame.expand_as(clip.video.frames).contiguous())

    def flow_warp(self) -> Outcome:
        """The edited first frame carried along by optical flow."""
        return self._baseline(FLOW_WARP)

    def colour_map(self) -> Outcome:
        """One map of colours from the first frame to all."""
        return self._baseline(COLOUR_MAP)

    def moving_layer(self) -> Outcome:
        """What the first frame changes, moved as one piece."""
        return self._baseline(MOVING_LAYER)

    def predicted(self, references: int = 0) -> Outcome:
        """The explained edit, which no diffusion model drew: the preview."""
        settings = self.settings("method.hint=explained")
        clip, prepared = self.clip(settings, references), self._prepared(settings, references)
        label = f"{PREDICTED}, {references} references" if references else PREDICTED
        return Outcome(label, predicted_clip(clip, prepared), None, tuple(clip.references))

    def best_of(self, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        """The best of these by what is true, where there is a true edit: what a person would have who could choose afterwards."""
        return ()

    def _baseline(self, name: str) -> Outcome:
        clip = self.clip(self.settings())
        return Outcome(name, BASELINES[name](clip.video.frames, clip.first_frame, clip.edit_mask))

    def _generated(self, label: str, settings: EditSettings, references: int = 0) -> Outcome:
        clip, prepared = self.clip(settings, references), self._prepared(settings, references)
        pixels = generate_windows(self.family, prepared, settings, settings.seed, lambda *_: None)
        return self._returned(label, clip, prepared, pixels, settings)

    def _prepared(self, settings: EditSettings, references: int = 0) -> PreparedClip:
        """The clip at the model's size; made once for all rows that share it, as predicting takes seconds."""
        parts = (self.family.name, references, settings.masks, settings.method.hint, settings.method.hint_confidence)
        key = repr((*parts, settings.compositing.crop, settings.compositing.zoom, settings.compositing.context))
        if key not in self._cache:
            self._cache[key] = prepare(self.family, self.clip(settings, references), settings)
        return self._cache[key]

    def _returned(self, label: str, clip: Clip, prepared: PreparedClip, pixels: torch.Tensor, settings: EditSettings) -> Outcome:
        bare = settings.compositing.model_copy(update={"enabled": False, "detail": False})
        each = (settings, settings.model_copy(update={"compositing": bare}))
        frames, raw = (torch.stack(list(finish(clip, prepared, pixels, how))) for how in each)
        return Outcome(label, frames, raw, tuple(clip.references))


@dataclass(frozen=True)
class SceneTrial(Trial):
    """A scene with truth."""

    edit: TrueEdit

    def settings(self, *assignments: str) -> EditSettings:
        """The model's preset with the study's and the row's changes."""
        tables = {"input": {"source": "scene", "first_frame": "scene"}, "seed": self.seed, "model": self.family.name}
        # The paper's region; the model is judged, not what compositing makes of it; `detail` is a study of its own.
        return resolve(tables, ("masks.shape=box", "compositing.crop=false", "compositing.detail=false", *self.base, *assignments))

    def clip(self, settings: EditSettings, references: int = 0) -> Clip:
        """The scene as a person would hand it over: source, edited first frame, loose box, and true edited later frames."""
        edit, masks = self.edit, settings.masks
        region = shape_mask(edit.mask, masks.shape, masks.expand, masks.smooth)
        video = Video(edit.source, Fraction(8), tuple(i / 8 for i in range(len(edit.source))))
        return Clip(video, region, edit.truth[0], {n: edit.truth[n] for n in later_frames(len(edit.truth), references)}, {})

    @property
    def later(self) -> int:
        """Every frame after the first."""
        return len(self.edit.truth) - 1

    def through_codec(self) -> tuple[Outcome, ...]:
        """The true edit through the model's codec: what a perfect model would reach."""
        settings = self.settings()
        clip = self.clip(settings)
        prepared = prepare(self.family, replace(clip, video=replace(clip.video, frames=self.edit.truth)), settings)
        canvas = prepared.canvas
        encoded = self.family.encode_sample(motion(canvas.source, torch.zeros_like(canvas.edit_mask)))
        assert encoded.target is not None
        return (self._returned("truth through the codec", clip, prepared, self.family.decode(encoded.target), settings),)

    def predicted(self, references: int = 0) -> Outcome:
        """The explained edit, which no diffusion model drew: the preview."""
        settings = self.settings("method.hint=explained")
        clip, prepared = self.clip(settings, references), self._prepared(settings, references)
        label = f"{PREDICTED}, {references} references" if references else PREDICTED
        return Outcome(label, predicted_clip(clip, prepared), None, tuple(clip.references))

    def best_of(self, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        """The one that is nearest to the true edit in the region, over every frame but the first."""
        box = self.clip(self.settings()).edit_mask.frames

        def nearness(outcome: Outcome) -> float:
            return psnr(outcome.frames[1:], self.edit.truth[1:], box[1:])

        return (replace(max(outcomes, key=nearness), label=BEST),)


def _make_room(family: Family) -> None:
    """Two models of real size do not fit on a device together."""
    for expert in family.experts():
        if isinstance(expert, StagedWan):
            expert.leave_device()


def later_frames(count: int, references: int) -> Sequence[int]:
    """Which of `count` frames are edited too: evenly spread behind the first, the last among them."""
    return [round(n * (count - 1) / references) for n in range(1, references + 1)]
