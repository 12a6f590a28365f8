"""One edit in memory, to be tried in several ways: what a study's rows are made of."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import torch

from lora_edit.canvas import Canvas, return_to_source
from lora_edit.compositing.flow_warp import flow_warp
from lora_edit.conditioning.method import motion
from lora_edit.config import EditSettings, resolve
from lora_edit.inputs import Clip
from lora_edit.masks.shapes import shape_mask
from lora_edit.models.catalog.vace import published
from lora_edit.models.experts import StagedWan
from lora_edit.models.family import Family
from lora_edit.models.storage import Storage, store_blocks
from lora_edit.samples import generate_windows, place, training_stages
from lora_edit.studies.scenes import TrueEdit
from lora_edit.training.loop import Stage, fit
from lora_edit.training.lora import add_lora, lora_parameters, remove_lora
from lora_edit.types import Video


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
        stages = training_stages(self.family, self._canvas(settings, references), settings)
        for expert in self.family.experts():
            add_lora(expert, settings.lora, settings.seed)
        return self._fit(stages, settings, settings.seed)

    def learn_appearance(self, references: int, *assignments: str) -> int:
        """Go on with the appearance stage on the LoRA as it is. Returns the steps done."""
        settings = self.settings(*assignments)
        last = training_stages(self.family, self._canvas(settings, references), settings)[-1:]
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
        """The classical baseline."""
        clip = self.clip(self.settings())
        return Outcome("flow warp", flow_warp(clip.video.frames, clip.first_frame, clip.edit_mask))

    def _generated(self, label: str, settings: EditSettings, references: int = 0) -> Outcome:
        clip, canvas = self.clip(settings, references), self._canvas(settings, references)
        pixels = generate_windows(self.family, canvas, settings, settings.seed, lambda *_: None)
        return self._returned(label, clip, canvas, pixels, settings)

    def _canvas(self, settings: EditSettings, references: int = 0) -> Canvas:
        return place(self.family, self.clip(settings, references), settings)

    def _returned(self, label: str, clip: Clip, canvas: Canvas, pixels: torch.Tensor, settings: EditSettings) -> Outcome:
        finished = settings.compositing
        bare = finished.model_copy(update={"enabled": False, "detail": False})
        frames, raw = (torch.stack(list(return_to_source(clip, canvas, pixels, how))) for how in (finished, bare))
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
        canvas = place(self.family, replace(clip, video=replace(clip.video, frames=self.edit.truth)), settings)
        encoded = self.family.encode_sample(motion(canvas.source, torch.zeros_like(canvas.edit_mask)))
        assert encoded.target is not None
        return (self._returned("truth through the codec", clip, canvas, self.family.decode(encoded.target), settings),)


def _make_room(family: Family) -> None:
    """Two models of real size do not fit on a device together."""
    for expert in family.experts():
        if isinstance(expert, StagedWan):
            expert.leave_device()


def later_frames(count: int, references: int) -> Sequence[int]:
    """Which of `count` frames are edited too: evenly spread behind the first, the last among them."""
    return [round(n * (count - 1) / references) for n in range(1, references + 1)]
