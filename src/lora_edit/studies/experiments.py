"""The paper's experiments and ours: each has its rows, the paper's figures, and its claims."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from lora_edit.config import PresetName
from lora_edit.models.runtime.quantization import WeightFormat
from lora_edit.studies.study import Study
from lora_edit.studies.table import Claim
from lora_edit.studies.trial import PROPAGATED_EDIT, Outcome, Trial
from lora_edit.types import Size

NO_RECOLOUR = "training.recolour=0.0"
"""Motion training as in the paper, without our recolouring."""

DEBIAS_SETTINGS = ("training.recolour=0.3", "training.retexture=0.5")
"""Ours: a share of the motion samples is recoloured, and half of these are textured."""

SCHEDULED_APPEARANCE = ("method.appearance_mask=scheduled", "training.appearance_steps=60", "training.motion_share=0.7")
"""Appearance training as in the paper, with its best number of steps; the default is the preset's (ours for the embedded model)."""

DETAIL_ON = "compositing.detail=true"
FIRST_FRAME_CONDITIONING = "method.conditioning=first-frame"
NO_EDIT, FLOW_WARP, BASE_MODEL = "no edit", "flow warp", "base model, mask given"
DEBIASED_LORA = "mask-aware, debiased (ours)"
APPEARANCE_AFTER_FIRST = "motion + appearance behind frame 0, 2 references (ours)"
FINAL_EDIT, FINAL_EDIT_WITH_REFERENCES = "the edit as delivered (ours)", "as delivered, 2 references (ours)"
"""With detail restoration (`compositing/detail.py`), as in `lora-edit edit`; every other row has the region as the model generates it."""
DISOCCLUSION_KINDS = ("rotation", "blooming", "occlusion", "removal", "replacement")
"""Kinds in which content becomes visible that no motion of the first frame's pixels can produce."""
RIGID_KINDS = ("recolour", "retexture", "camera", "several")


# --- figure 2 -----------------------------------------------------------------------------------------------------------------


def _run_mask_configurations(trial: Trial) -> Iterator[Outcome]:
    yield trial.copy_source()
    trial.unload_lora()
    for label, setting in {
        "first frame given (default)": "first-frame",
        "nothing given": "all-zeros",
        "everything given": "all-ones",
        "all but the region given": "mask-aware",
    }.items():
        yield trial.generate(label, f"method.conditioning={setting}")


MASK_CONFIGURATIONS = Study(
    "Four masks without tuning (figure 2)",
    _run_mask_configurations,
    claims=(Claim("all but the region given", "everything given", "figure 2: with everything given the region is not edited"),),
)


# --- table 1 ------------------------------------------------------------------------------------------------------------------


def _run_methods(trial: Trial) -> Iterator[Outcome]:
    classical = (trial.run_flow_warp(), trial.run_colour_map(), trial.run_moving_layer())
    yield from (trial.copy_source(), trial.repeat_first_frame(), *classical, *trial.select_best(classical), trial.propagate_edit())
    yield from (*trial.reconstruct_true_edit(), *trial.generate_with_vace())
    trial.unload_lora()
    yield trial.generate("base model, first frame given", FIRST_FRAME_CONDITIONING)
    yield trial.generate(BASE_MODEL)
    yield trial.train_and_generate("naive LoRA (Eq. 1)", FIRST_FRAME_CONDITIONING, NO_RECOLOUR)
    yield trial.generate("feature-level (Eq. 3)", "method.conditioning=feature-level")
    yield trial.train_and_generate("mask-aware motion LoRA (3.3.1)", NO_RECOLOUR)
    yield trial.generate(FINAL_EDIT, DETAIL_ON)
    if trial.max_references >= 2:
        restore_motion_lora = trial.snapshot_lora()
        trial.learn_appearance(2, NO_RECOLOUR, *SCHEDULED_APPEARANCE)
        yield trial.generate("motion + appearance, 2 references (3.3.2)", num_references=2)
        restore_motion_lora()
        trial.learn_appearance(2, NO_RECOLOUR)
        yield trial.generate(APPEARANCE_AFTER_FIRST, num_references=2)
        yield trial.generate(FINAL_EDIT_WITH_REFERENCES, DETAIL_ON, num_references=2)
    yield trial.train_and_generate(DEBIASED_LORA, *DEBIAS_SETTINGS)
    if trial.max_references >= 2:
        trial.learn_appearance(2, *DEBIAS_SETTINGS)
        yield trial.generate("debiased motion + appearance (ours)", num_references=2)


METHODS = Study(
    "The method's parts and the baselines (table 1)",
    _run_methods,
    claims=(
        Claim("mask-aware motion LoRA (3.3.1)", "naive LoRA (Eq. 1)", "section 3.2"),
        Claim("mask-aware motion LoRA (3.3.1)", "feature-level (Eq. 3)", "appendix B.1"),
        Claim("mask-aware motion LoRA (3.3.1)", BASE_MODEL, "section 3.3.1: a LoRA on the one clip helps"),
        Claim("motion + appearance, 2 references (3.3.2)", "mask-aware motion LoRA (3.3.1)", "section 3.3.2"),
        Claim(APPEARANCE_AFTER_FIRST, "mask-aware motion LoRA (3.3.1)", "section 3.3.2, with our sample"),
        Claim(DEBIASED_LORA, "naive LoRA (Eq. 1)", "section 3.2, with our debiasing"),
        Claim(DEBIASED_LORA, "feature-level (Eq. 3)", "appendix B.1, with our debiasing"),
        Claim(DEBIASED_LORA, "mask-aware motion LoRA (3.3.1)", "ours: debiasing helps"),
        Claim(DEBIASED_LORA, BASE_MODEL, "a debiased LoRA on the one clip helps"),
        Claim("debiased motion + appearance (ours)", DEBIASED_LORA, "section 3.3.2, with our debiasing"),
        Claim(
            "mask-aware motion LoRA (3.3.1)",
            FLOW_WARP,
            "ours: ahead of a flow warp where content becomes visible",
            kinds=DISOCCLUSION_KINDS,
        ),
        Claim("mask-aware motion LoRA (3.3.1)", FLOW_WARP, "ours: near a flow warp on rigid motion", margin=-1.0, kinds=RIGID_KINDS),
        Claim(FINAL_EDIT, FLOW_WARP, "ours: ahead of a flow warp where content becomes visible", kinds=DISOCCLUSION_KINDS),
        Claim(FINAL_EDIT, FLOW_WARP, "ours: near a flow warp on rigid motion", margin=-1.0, kinds=RIGID_KINDS),
        Claim(FINAL_EDIT, "mask-aware motion LoRA (3.3.1)", "ours: detail restoration helps"),
        Claim(FINAL_EDIT_WITH_REFERENCES, FINAL_EDIT, "section 3.3.2 as delivered: edited later frames help"),
    ),
    paper={
        "mask-aware motion LoRA (3.3.1)": "CLIP 0.9172, DeQA 3.8013, input similarity 0.7608",
        "feature-level (Eq. 3)": "CLIP 0.8936, DeQA 3.5878, input similarity 0.7402",
    },
)


# --- table 3 ------------------------------------------------------------------------------------------------------------------


def _run_input_feature(trial: Trial) -> Iterator[Outcome]:
    trial.train(FIRST_FRAME_CONDITIONING, NO_RECOLOUR)
    yield trial.generate("feature-level (Eq. 3)", "method.conditioning=feature-level")
    yield trial.train_and_generate("input-level", NO_RECOLOUR)
    trial.train(FIRST_FRAME_CONDITIONING, *DEBIAS_SETTINGS)
    yield trial.generate("feature-level, debiased", "method.conditioning=feature-level")
    yield trial.train_and_generate("input-level, debiased", *DEBIAS_SETTINGS)


INPUT_FEATURE = Study(
    "The mask as an input, or blended into the latents (table 3)",
    _run_input_feature,
    claims=(
        Claim("input-level", "feature-level (Eq. 3)", "table 3"),
        Claim("input-level, debiased", "feature-level, debiased", "table 3, with our debiasing"),
    ),
    paper={"feature-level (Eq. 3)": "CLIP 0.8936, DeQA 3.5878, input similarity 0.7402", "input-level": "0.9172, 3.8013, 0.7608"},
)


# --- appendix B.2 -------------------------------------------------------------------------------------------------------------


def _run_mask_shape(trial: Trial) -> Iterator[Outcome]:
    for shape in ("tight", "noisy", "box"):
        yield trial.train_and_generate(shape, f"masks.shape={shape}")


MASK_SHAPE = Study(
    "Tight, noisy or box mask (appendix B.2)",
    _run_mask_shape,
    claims=(
        Claim("box", "tight", "B.2: a loose box is better than a tight mask"),
        Claim("noisy", "tight", "B.2: a noisy mask is better than a tight one"),
    ),
)


# --- appendix B.3, figure 7 ---------------------------------------------------------------------------------------------------


NEW_APPEARANCE_KINDS = ("rotation", "blooming", "retexture", "deformation")
"""Kinds whose later appearance the first frame does not show, and one that it shows."""


def _run_mask_schedule(trial: Trial) -> Iterator[Outcome]:
    trial.train()
    yield trial.generate("motion only")
    restore_motion_lora = trial.snapshot_lora()
    for label, settings in {
        "mask kept as for motion": (*SCHEDULED_APPEARANCE, "method.appearance_mask=first-frame"),
        "mask scheduled": SCHEDULED_APPEARANCE,
        "behind the edited first frame (ours)": ("method.appearance_mask=after-first",),
    }.items():
        restore_motion_lora()
        trial.learn_appearance(2, *settings)
        yield trial.generate(label, num_references=2)


MASK_SCHEDULE = Study(
    "The mask of appearance samples, scheduled or not (appendix B.3)",
    _run_mask_schedule,
    claims=(
        Claim("mask scheduled", "mask kept as for motion", "B.3"),
        Claim("mask scheduled", "motion only", "section 3.3.2"),
        Claim("behind the edited first frame (ours)", "mask scheduled", "ours"),
        Claim("behind the edited first frame (ours)", "motion only", "section 3.3.2, with our sample"),
    ),
    kinds=NEW_APPEARANCE_KINDS,
    min_references=2,
)


def _run_references(trial: Trial) -> Iterator[Outcome]:
    trial.train()
    restore_motion_lora = trial.snapshot_lora()
    for count in range(min(trial.max_references, 4) + 1):
        restore_motion_lora()
        if count == 2:
            trial.learn_appearance(count, *SCHEDULED_APPEARANCE)
            yield trial.generate("2 later frames, the paper's sample", num_references=count)
            restore_motion_lora()
        if count:
            trial.learn_appearance(count)
        yield trial.generate(f"{count} later frames", num_references=count)
        yield trial.generate(f"{count} later frames, as delivered", DETAIL_ON, num_references=count)


REFERENCES = Study(
    "Edited later frames as references (figure 7)",
    _run_references,
    claims=(
        Claim("1 later frames", "0 later frames", "figure 7"),
        Claim("2 later frames", "0 later frames", "figure 7"),
        Claim("4 later frames", "0 later frames", "figure 7"),
        Claim("2 later frames, the paper's sample", "0 later frames", "figure 7, section 3.3.2"),
        Claim("1 later frames, as delivered", "0 later frames, as delivered", "figure 7, as delivered"),
        Claim("2 later frames, as delivered", "0 later frames, as delivered", "figure 7, as delivered"),
    ),
    kinds=("rotation", "blooming"),
    min_references=1,
)


# --- appendix B.4 -------------------------------------------------------------------------------------------------------------


def _run_frames(trial: Trial) -> Iterator[Outcome]:
    yield trial.run_flow_warp()
    trial.unload_lora()
    yield trial.generate(BASE_MODEL)
    yield trial.train_and_generate("edited")


FRAMES = Study(
    "Clips of 5 to 81 frames (appendix B.4)",
    _run_frames,
    frame_counts=(5, 13, 21, 49, 81),
    kinds=("recolour", "retexture", "deformation"),
)


# --- appendix C ---------------------------------------------------------------------------------------------------------------


def _run_windows(trial: Trial) -> Iterator[Outcome]:
    yield trial.train_and_generate("whole clip")
    for label, factor in {"windows of 9": 1, "windows of 9, twice the steps": 2}.items():
        count = factor * trial.resolve_settings().training.motion_steps
        yield trial.train_and_generate(label, "training.window=9", f"training.motion_steps={count}")
        yield trial.generate(f"{label}, drawn so too", "generation.window=9")


WINDOWS = Study(
    "Training on windows of 9 frames (appendix C)",
    _run_windows,
    claims=(
        Claim("windows of 9", "whole clip", "appendix C: comparable, here less than 0.5 dB lost", margin=-0.5),
        Claim("windows of 9, twice the steps", "whole clip", "appendix C, as many frames seen", margin=-0.5),
        Claim("windows of 9, twice the steps, drawn so too", "whole clip", "appendix C, ours", margin=-0.5),
    ),
)


# --- ours ---------------------------------------------------------------------------------------------------------------------


def _run_lora(trial: Trial) -> Iterator[Outcome]:
    for rank in (4, 16, 64):
        yield trial.train_and_generate(f"rank {rank}", f"lora.rank={rank}")
    for targets in ("attention", "query+key"):
        yield trial.train_and_generate(f"{targets} only", f"lora.targets={targets}")
    for steps in (20, 40, 160):
        yield trial.train_and_generate(f"{steps} steps", f"training.motion_steps={steps}")


LORA = Study("Rank, layers and steps of the LoRA", _run_lora)


STANDARD_PRESET = "standard"


def _run_presets(trial: Trial) -> Iterator[Outcome]:
    for preset in get_args(PresetName):
        preset_trial = trial.with_quantization(trial.resolve_settings(f"preset={preset}").training.base)
        yield preset_trial.train_and_generate(preset, f"preset={preset}")
        yield preset_trial.generate(f"{preset}, as delivered", DETAIL_ON, f"preset={preset}")
        preset_trial.unload_lora()
    for steps in (25, 50, 100):
        yield trial.train_and_generate(f"{steps} steps", f"training.motion_steps={steps}")


PRESETS = Study(
    "The named presets, and fewer steps (ours)",
    _run_presets,
    claims=(
        Claim("fast", STANDARD_PRESET, "ours: loses less than 0.5 dB", margin=-0.5),
        Claim("low-vram", STANDARD_PRESET, "ours: loses less than 0.5 dB", margin=-0.5),
        Claim("fast, as delivered", f"{STANDARD_PRESET}, as delivered", "ours: loses less than 0.5 dB", margin=-0.5),
        Claim("low-vram, as delivered", f"{STANDARD_PRESET}, as delivered", "ours: loses less than 0.5 dB", margin=-0.5),
    ),
)


def _run_storage(trial: Trial) -> Iterator[Outcome]:
    trial.unload_lora()
    for weight_format, label in QUANTIZATION_LABELS.items():
        quantized_trial = trial.with_quantization(weight_format)
        yield quantized_trial.train_and_generate(label)
        quantized_trial.unload_lora()


QUANTIZATION_LABELS: dict[WeightFormat, str] = {"full": "full", "int8": "8-bit integers", "fp8": "8-bit floats", "nf4": "4 bits"}

STORAGE = Study(
    "Storage of the frozen weights (ours)",
    _run_storage,
    claims=tuple(
        Claim(QUANTIZATION_LABELS[weight_format], QUANTIZATION_LABELS["full"], "ours: loses less than 0.2 dB", margin=-0.2)
        for weight_format in QUANTIZATION_LABELS
        if weight_format != "full"
    ),
)


def _run_snapping(trial: Trial) -> Iterator[Outcome]:
    yield trial.train_and_generate("mask as drawn", "masks.snap=false")
    yield trial.train_and_generate("snapped to tokens and frame groups")


SNAPPING = Study(
    "The region grown to whole tokens and latent frames, or as drawn (ours)",
    _run_snapping,
    claims=(Claim("snapped to tokens and frame groups", "mask as drawn", "ours"),),
)


PAPER_LORA = "plain (the paper's)"


def _run_debiasing(trial: Trial) -> Iterator[Outcome]:
    trial.unload_lora()
    yield trial.generate(BASE_MODEL)
    yield trial.train_and_generate(PAPER_LORA, NO_RECOLOUR)
    yield trial.train_and_generate("anchor-debiased loss (MotionDirector)", NO_RECOLOUR, "training.debias=anchor")
    yield trial.train_and_generate("offset noise (JointTuner)", NO_RECOLOUR, "training.debias=offset-noise")
    yield trial.train_and_generate("query and key only", NO_RECOLOUR, "lora.targets=query+key")
    for share in (0.3, 0.6, 0.9):
        yield trial.train_and_generate(f"recoloured, share {share}", f"training.recolour={share}", "training.retexture=0.0")
    for share in (0.5, 1.0):
        yield trial.train_and_generate(f"recoloured 0.3, of these textured {share}", "training.recolour=0.3", f"training.retexture={share}")


DEBIASING = Study(
    "Ways to keep the source's look out of the LoRA (ours)",
    _run_debiasing,
    claims=(
        Claim("anchor-debiased loss (MotionDirector)", PAPER_LORA, "related debiasing methods"),
        Claim("offset noise (JointTuner)", PAPER_LORA, "related debiasing methods"),
        Claim("query and key only", PAPER_LORA, "related debiasing methods"),
        Claim("recoloured, share 0.3", PAPER_LORA, "ours"),
        Claim("recoloured 0.3, of these textured 0.5", PAPER_LORA, "ours"),
        Claim("recoloured 0.3, of these textured 0.5", "recoloured, share 0.3", "ours: textures on top"),
    ),
)


def _run_detail(trial: Trial) -> Iterator[Outcome]:
    yield trial.run_flow_warp()
    yield trial.propagate_edit()
    trial.train()
    yield trial.generate("as the model returns it")
    yield trial.generate("detail restored", DETAIL_ON)


DETAIL = Study(
    "Detail above the model's resolution (ours)",
    _run_detail,
    claims=(
        Claim("detail restored", "as the model returns it", "ours"),
        Claim("detail restored", PROPAGATED_EDIT, "ours: the model improves on its hint"),
        Claim("detail restored", FLOW_WARP, "ours: ahead of a flow warp where content becomes visible", kinds=DISOCCLUSION_KINDS),
    ),
    size=Size(256, 256),
)
