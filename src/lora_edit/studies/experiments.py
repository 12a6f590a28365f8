"""The paper's experiments, and ours: each is what it tries on a scene, what the paper says, and what is claimed."""

from __future__ import annotations

from collections.abc import Iterator

from lora_edit.models.storage import Storage
from lora_edit.studies.study import Study
from lora_edit.studies.table import Claim
from lora_edit.studies.trial import PREDICTED, Outcome, Trial
from lora_edit.types import Size

PLAIN = "training.recolour=0.0"
"""The paper's motion learning, without our recolouring."""

DEBIAS = ("training.recolour=0.3", "training.retexture=0.5")
"""Ours: a part of the motion samples recoloured, and half of these textured."""

SCHEDULED = ("method.appearance_mask=scheduled", "training.appearance_steps=60", "training.motion_share=0.7")
"""Appearance as in the paper, with the steps that were best for it; without this the preset's (ours for the embedded model)."""

DETAIL_ON = "compositing.detail=true"
NAIVE = "method.conditioning=first-frame"
NO_EDIT, FLOW, BASE = "no edit", "flow warp", "base model, mask given"
DEBIASED = "mask-aware, debiased (ours)"
AFTER_FIRST = "motion + appearance behind frame 0, 2 references (ours)"
DELIVERED, DELIVERED_LATER = "the edit as delivered (ours)", "as delivered, 2 references (ours)"
"""With what compositing restores (`compositing/detail.py`), as `lora-edit edit` does; every other row is the model's own region."""
HIDDEN = ("rotation", "blooming", "occlusion", "removal", "replacement")
"""Kinds in which something comes to sight that no motion of the first frame's pixels can show."""
RIGID = ("recolour", "retexture", "camera", "several")


# --- figure 2 -----------------------------------------------------------------------------------------------------------------


def _mask_configurations(trial: Trial) -> Iterator[Outcome]:
    yield trial.no_edit()
    trial.forget()
    for label, setting in {
        "first frame given (default)": "first-frame",
        "nothing given": "all-zeros",
        "everything given": "all-ones",
        "all but the region given": "mask-aware",
    }.items():
        yield trial.generate(label, f"method.conditioning={setting}")


MASK_CONFIGURATIONS = Study(
    "Four masks without tuning (figure 2)",
    _mask_configurations,
    claims=(Claim("all but the region given", "everything given", "figure 2: with everything given the region is not edited"),),
)


# --- table 1 ------------------------------------------------------------------------------------------------------------------


def _methods(trial: Trial) -> Iterator[Outcome]:
    classical = (trial.flow_warp(), trial.colour_map(), trial.moving_layer())
    yield from (trial.no_edit(), trial.frozen(), *classical, *trial.best_of(classical), trial.predicted())
    yield from (*trial.through_codec(), *trial.reference_guided())
    trial.forget()
    yield trial.generate("base model, first frame given", NAIVE)
    yield trial.generate(BASE)
    yield trial.edited("naive LoRA (Eq. 1)", NAIVE, PLAIN)
    yield trial.generate("feature-level (Eq. 3)", "method.conditioning=feature-level")
    yield trial.edited("mask-aware motion LoRA (3.3.1)", PLAIN)
    yield trial.generate(DELIVERED, DETAIL_ON)
    if trial.later >= 2:
        motion_alone = trial.keep()
        trial.learn_appearance(2, PLAIN, *SCHEDULED)
        yield trial.generate("motion + appearance, 2 references (3.3.2)", references=2)
        motion_alone()
        trial.learn_appearance(2, PLAIN)
        yield trial.generate(AFTER_FIRST, references=2)
        yield trial.generate(DELIVERED_LATER, DETAIL_ON, references=2)
    yield trial.edited(DEBIASED, *DEBIAS)
    if trial.later >= 2:
        trial.learn_appearance(2, *DEBIAS)
        yield trial.generate("debiased motion + appearance (ours)", references=2)


METHODS = Study(
    "The method's parts, and what else does the job (table 1)",
    _methods,
    claims=(
        Claim("mask-aware motion LoRA (3.3.1)", "naive LoRA (Eq. 1)", "section 3.2"),
        Claim("mask-aware motion LoRA (3.3.1)", "feature-level (Eq. 3)", "appendix B.1"),
        Claim("mask-aware motion LoRA (3.3.1)", BASE, "section 3.3.1: a LoRA on the one clip helps"),
        Claim("motion + appearance, 2 references (3.3.2)", "mask-aware motion LoRA (3.3.1)", "section 3.3.2"),
        Claim(AFTER_FIRST, "mask-aware motion LoRA (3.3.1)", "section 3.3.2, with our sample"),
        Claim(DEBIASED, "naive LoRA (Eq. 1)", "section 3.2, with our debiasing"),
        Claim(DEBIASED, "feature-level (Eq. 3)", "appendix B.1, with our debiasing"),
        Claim(DEBIASED, "mask-aware motion LoRA (3.3.1)", "ours: debiasing helps"),
        Claim(DEBIASED, BASE, "a debiased LoRA on the one clip helps"),
        Claim("debiased motion + appearance (ours)", DEBIASED, "section 3.3.2, with our debiasing"),
        Claim("mask-aware motion LoRA (3.3.1)", FLOW, "ours: ahead of a flow warp where it has no answer", kinds=HIDDEN),
        Claim("mask-aware motion LoRA (3.3.1)", FLOW, "ours: near a flow warp where all moves rigidly", margin=-1.0, kinds=RIGID),
        Claim(DELIVERED, FLOW, "ours: ahead of a flow warp where it has no answer", kinds=HIDDEN),
        Claim(DELIVERED, FLOW, "ours: near a flow warp where all moves rigidly", margin=-1.0, kinds=RIGID),
        Claim(DELIVERED, "mask-aware motion LoRA (3.3.1)", "ours: what compositing restores"),
        Claim(DELIVERED_LATER, DELIVERED, "section 3.3.2 as delivered: edited later frames help"),
    ),
    paper={
        "mask-aware motion LoRA (3.3.1)": "CLIP 0.9172, DeQA 3.8013, input similarity 0.7608",
        "feature-level (Eq. 3)": "CLIP 0.8936, DeQA 3.5878, input similarity 0.7402",
    },
)


# --- table 3 ------------------------------------------------------------------------------------------------------------------


def _input_feature(trial: Trial) -> Iterator[Outcome]:
    trial.train(NAIVE, PLAIN)
    yield trial.generate("feature-level (Eq. 3)", "method.conditioning=feature-level")
    yield trial.edited("input-level", PLAIN)
    trial.train(NAIVE, *DEBIAS)
    yield trial.generate("feature-level, debiased", "method.conditioning=feature-level")
    yield trial.edited("input-level, debiased", *DEBIAS)


INPUT_FEATURE = Study(
    "The mask as an input, or blended into the latents (table 3)",
    _input_feature,
    claims=(
        Claim("input-level", "feature-level (Eq. 3)", "table 3"),
        Claim("input-level, debiased", "feature-level, debiased", "table 3, with our debiasing"),
    ),
    paper={"feature-level (Eq. 3)": "CLIP 0.8936, DeQA 3.5878, input similarity 0.7402", "input-level": "0.9172, 3.8013, 0.7608"},
)


# --- appendix B.2 -------------------------------------------------------------------------------------------------------------


def _mask_shape(trial: Trial) -> Iterator[Outcome]:
    for shape in ("tight", "noisy", "box"):
        yield trial.edited(shape, f"masks.shape={shape}")


MASK_SHAPE = Study(
    "Tight, noisy or box mask (appendix B.2)",
    _mask_shape,
    claims=(Claim("box", "tight", "B.2: a loose box is better than a tight mask"), Claim("noisy", "tight", "B.2: so is a noisy one")),
)


# --- appendix B.3, figure 7 ---------------------------------------------------------------------------------------------------


UNSEEN = ("rotation", "blooming", "retexture", "deformation")
"""Kinds whose later looks the first frame does not show, and one that it shows."""


def _mask_schedule(trial: Trial) -> Iterator[Outcome]:
    trial.train()
    yield trial.generate("motion only")
    motion_alone = trial.keep()
    for label, settings in {
        "mask kept as for motion": (*SCHEDULED, "method.appearance_mask=first-frame"),
        "mask scheduled": SCHEDULED,
        "behind the edited first frame (ours)": ("method.appearance_mask=after-first",),
    }.items():
        motion_alone()
        trial.learn_appearance(2, *settings)
        yield trial.generate(label, references=2)


MASK_SCHEDULE = Study(
    "The mask of appearance samples, scheduled or not (appendix B.3)",
    _mask_schedule,
    claims=(
        Claim("mask scheduled", "mask kept as for motion", "B.3"),
        Claim("mask scheduled", "motion only", "section 3.3.2"),
        Claim("behind the edited first frame (ours)", "mask scheduled", "ours"),
        Claim("behind the edited first frame (ours)", "motion only", "section 3.3.2, with our sample"),
    ),
    kinds=UNSEEN,
    later=2,
)


def _references(trial: Trial) -> Iterator[Outcome]:
    trial.train()
    motion_alone = trial.keep()
    for count in range(min(trial.later, 4) + 1):
        motion_alone()
        if count == 2:
            trial.learn_appearance(count, *SCHEDULED)
            yield trial.generate("2 later frames, the paper's sample", references=count)
            motion_alone()
        if count:
            trial.learn_appearance(count)
        yield trial.generate(f"{count} later frames", references=count)
        yield trial.generate(f"{count} later frames, as delivered", DETAIL_ON, references=count)


REFERENCES = Study(
    "Edited later frames as references (figure 7)",
    _references,
    claims=(
        Claim("1 later frames", "0 later frames", "figure 7"),
        Claim("2 later frames", "0 later frames", "figure 7"),
        Claim("4 later frames", "0 later frames", "figure 7"),
        Claim("2 later frames, the paper's sample", "0 later frames", "figure 7, section 3.3.2"),
        Claim("1 later frames, as delivered", "0 later frames, as delivered", "figure 7, as delivered"),
        Claim("2 later frames, as delivered", "0 later frames, as delivered", "figure 7, as delivered"),
    ),
    kinds=("rotation", "blooming"),
    later=1,
)


# --- appendix B.4 -------------------------------------------------------------------------------------------------------------


def _frames(trial: Trial) -> Iterator[Outcome]:
    yield trial.flow_warp()
    trial.forget()
    yield trial.generate(BASE)
    yield trial.edited("edited")


FRAMES = Study(
    "Clips of 5 to 81 frames (appendix B.4)",
    _frames,
    frames=(5, 13, 21, 49, 81),
    kinds=("recolour", "retexture", "deformation"),
)


# --- appendix C ---------------------------------------------------------------------------------------------------------------


def _windows(trial: Trial) -> Iterator[Outcome]:
    yield trial.edited("whole clip")
    for label, steps in {"windows of 9": 1, "windows of 9, twice the steps": 2}.items():
        count = steps * trial.settings().training.motion_steps
        yield trial.edited(label, "training.window=9", f"training.motion_steps={count}")
        yield trial.generate(f"{label}, drawn so too", "generation.window=9")


WINDOWS = Study(
    "Training on windows of 9 frames (appendix C)",
    _windows,
    claims=(
        Claim("windows of 9", "whole clip", "appendix C: comparable, here less than 0.5 dB lost", margin=-0.5),
        Claim("windows of 9, twice the steps", "whole clip", "appendix C, as many frames seen", margin=-0.5),
        Claim("windows of 9, twice the steps, drawn so too", "whole clip", "appendix C, ours", margin=-0.5),
    ),
)


# --- ours ---------------------------------------------------------------------------------------------------------------------


def _lora(trial: Trial) -> Iterator[Outcome]:
    for rank in (4, 16, 64):
        yield trial.edited(f"rank {rank}", f"lora.rank={rank}")
    for targets in ("attention", "query+key"):
        yield trial.edited(f"{targets} only", f"lora.targets={targets}")
    for steps in (20, 40, 160):
        yield trial.edited(f"{steps} steps", f"training.motion_steps={steps}")


LORA = Study("Rank, place and steps of the LoRA", _lora)


STANDARD = "standard"


def _presets(trial: Trial) -> Iterator[Outcome]:
    for preset in (STANDARD, "fast", "low-vram"):
        model = trial.kept_as(trial.settings(f"preset={preset}").training.base)
        yield model.edited(preset, f"preset={preset}")
        yield model.generate(f"{preset}, as delivered", DETAIL_ON, f"preset={preset}")
        model.forget()
    for steps in (25, 50, 100):
        yield trial.edited(f"{steps} steps", f"training.motion_steps={steps}")


PRESETS = Study(
    "The named presets, and fewer steps (ours)",
    _presets,
    claims=(
        Claim("fast", STANDARD, "ours: loses less than 0.5 dB", margin=-0.5),
        Claim("low-vram", STANDARD, "ours: loses less than 0.5 dB", margin=-0.5),
        Claim("fast, as delivered", f"{STANDARD}, as delivered", "ours: loses less than 0.5 dB", margin=-0.5),
        Claim("low-vram, as delivered", f"{STANDARD}, as delivered", "ours: loses less than 0.5 dB", margin=-0.5),
    ),
)


def _storage(trial: Trial) -> Iterator[Outcome]:
    trial.forget()
    for base, label in BASES.items():
        model = trial.kept_as(base)
        yield model.edited(label)
        model.forget()


BASES: dict[Storage, str] = {"full": "full", "int8": "8-bit integers", "fp8": "8-bit floats", "nf4": "4 bits"}

STORAGE = Study(
    "How the frozen weights are kept (ours)",
    _storage,
    claims=tuple(Claim(BASES[base], BASES["full"], "ours: loses less than 0.2 dB", margin=-0.2) for base in BASES if base != "full"),
)


def _snapping(trial: Trial) -> Iterator[Outcome]:
    yield trial.edited("mask as drawn", "masks.snap=false")
    yield trial.edited("snapped to tokens and frame groups")


SNAPPING = Study(
    "The region grown to whole tokens and latent frames, or as drawn (ours)",
    _snapping,
    claims=(Claim("snapped to tokens and frame groups", "mask as drawn", "ours"),),
)


PAPERS = "plain (the paper's)"


def _debiasing(trial: Trial) -> Iterator[Outcome]:
    trial.forget()
    yield trial.generate(BASE)
    yield trial.edited(PAPERS, PLAIN)
    yield trial.edited("anchor-debiased loss (MotionDirector)", PLAIN, "training.debias=anchor")
    yield trial.edited("offset noise (JointTuner)", PLAIN, "training.debias=offset-noise")
    yield trial.edited("query and key only", PLAIN, "lora.targets=query+key")
    for share in (0.3, 0.6, 0.9):
        yield trial.edited(f"recoloured, share {share}", f"training.recolour={share}", "training.retexture=0.0")
    for share in (0.5, 1.0):
        yield trial.edited(f"recoloured 0.3, of these textured {share}", "training.recolour=0.3", f"training.retexture={share}")


DEBIASING = Study(
    "Ways to keep the source's look out of the LoRA (ours)",
    _debiasing,
    claims=(
        Claim("anchor-debiased loss (MotionDirector)", PAPERS, "its relatives"),
        Claim("offset noise (JointTuner)", PAPERS, "its relatives"),
        Claim("query and key only", PAPERS, "its relatives"),
        Claim("recoloured, share 0.3", PAPERS, "ours"),
        Claim("recoloured 0.3, of these textured 0.5", PAPERS, "ours"),
        Claim("recoloured 0.3, of these textured 0.5", "recoloured, share 0.3", "ours: textures on top"),
    ),
)


def _detail(trial: Trial) -> Iterator[Outcome]:
    yield trial.flow_warp()
    yield trial.predicted()
    trial.train()
    yield trial.generate("as the model returns it")
    yield trial.generate("detail restored", DETAIL_ON)


DETAIL = Study(
    "Detail above the model's resolution (ours)",
    _detail,
    claims=(
        Claim("detail restored", "as the model returns it", "ours"),
        Claim("detail restored", PREDICTED, "ours: the model improves what it is shown"),
        Claim("detail restored", FLOW, "ours: ahead of a flow warp where it has no answer", kinds=HIDDEN),
    ),
    size=Size(256, 256),
)
