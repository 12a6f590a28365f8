"""Our study of early stopping and of the noise levels of the appearance steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lora_edit.studies.study import Study
from lora_edit.studies.table import Claim
from lora_edit.studies.trial import Outcome, Trial

DECAYING_RATE = "rate falling to zero"
DECAYING_RATE_100_STEPS = f"{DECAYING_RATE}, 100 steps"
CONSTANT_RATE = "constant rate"
EARLY_STOP = f"{CONSTANT_RATE}, early stop"
RATE_SETTINGS = {
    CONSTANT_RATE: ("training.schedule=constant",),
    EARLY_STOP: ("training.schedule=constant", "training.early_stop=true"),
}
NUM_REFERENCES = 2
REFERENCES_SUFFIX = f"{NUM_REFERENCES} references"
MOTION_SHIFT, HIGHER_SHIFT, LOWER_SHIFT = (
    f"times as for motion, {REFERENCES_SUFFIX}",
    f"appearance_shift 3, {REFERENCES_SUFFIX}",
    f"appearance_shift 1, {REFERENCES_SUFFIX}",
)
SHIFT_SETTINGS = {MOTION_SHIFT: (), HIGHER_SHIFT: ("training.appearance_shift=3",), LOWER_SHIFT: ("training.appearance_shift=1",)}
EIGHT_SAMPLING_STEPS = "8 sampling steps"
"""The embedded model's single step evaluates it at t = 1 only, so low noise levels of training have no effect."""

SMALL_LOSS_SOURCE = "ours: loses less than 0.2 dB"


def _run_fewer_steps(trial: Trial) -> Iterator[Outcome]:
    steps = trial.train("training.motion_steps=100")
    yield replace(trial.generate(DECAYING_RATE_100_STEPS), steps=steps)
    motion_steps = trial.train()
    yield replace(trial.generate(DECAYING_RATE), steps=motion_steps)
    restore_motion_lora = trial.snapshot_lora()
    for label, shift in SHIFT_SETTINGS.items():
        restore_motion_lora()
        steps = motion_steps + trial.learn_appearance(NUM_REFERENCES, *shift)
        for suffix, sampling in {"": (), f", {EIGHT_SAMPLING_STEPS}": ("generation.steps=8",)}.items():
            yield replace(trial.generate(label + suffix, *sampling, num_references=NUM_REFERENCES), steps=steps)
    for label, rate in RATE_SETTINGS.items():
        motion_steps = trial.train(*rate)
        yield replace(trial.generate(label), steps=motion_steps)
        steps = motion_steps + trial.learn_appearance(NUM_REFERENCES, *rate)
        yield replace(trial.generate(f"{label}, {REFERENCES_SUFFIX}", num_references=NUM_REFERENCES), steps=steps)


FEWER_STEPS = Study(
    "Training that ends by itself, and the times of the appearance steps (ours)",
    _run_fewer_steps,
    claims=(
        Claim(EARLY_STOP, CONSTANT_RATE, SMALL_LOSS_SOURCE, margin=-0.2),
        Claim(EARLY_STOP, DECAYING_RATE, SMALL_LOSS_SOURCE, margin=-0.2),
        Claim(EARLY_STOP, DECAYING_RATE_100_STEPS, "ours: no worse than as many steps set by hand", margin=-0.2),
        Claim(f"{EARLY_STOP}, {REFERENCES_SUFFIX}", f"{CONSTANT_RATE}, {REFERENCES_SUFFIX}", SMALL_LOSS_SOURCE, margin=-0.2),
        Claim(HIGHER_SHIFT, MOTION_SHIFT, SMALL_LOSS_SOURCE, margin=-0.2),
        Claim(LOWER_SHIFT, MOTION_SHIFT, SMALL_LOSS_SOURCE, margin=-0.2),
        Claim(f"{HIGHER_SHIFT}, {EIGHT_SAMPLING_STEPS}", f"{MOTION_SHIFT}, {EIGHT_SAMPLING_STEPS}", SMALL_LOSS_SOURCE, margin=-0.2),
        Claim(f"{LOWER_SHIFT}, {EIGHT_SAMPLING_STEPS}", f"{MOTION_SHIFT}, {EIGHT_SAMPLING_STEPS}", SMALL_LOSS_SOURCE, margin=-0.2),
    ),
    min_references=NUM_REFERENCES,
)
