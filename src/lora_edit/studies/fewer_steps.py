"""Ours: training that ends by itself, and the times that appearance is learned at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lora_edit.studies.study import Study
from lora_edit.studies.table import Claim
from lora_edit.studies.trial import Outcome, Trial

FALLING = "rate falling to zero"
FEWER = f"{FALLING}, 100 steps"
CONSTANT = "constant rate"
EARLY = f"{CONSTANT}, early stop"
RATES = {
    CONSTANT: ("training.schedule=constant",),
    EARLY: ("training.schedule=constant", "training.early_stop=true"),
}
REFERENCES = 2
SHOWN = f"{REFERENCES} references"
AS_MOTION, HIGHER, LOWER = f"times as for motion, {SHOWN}", f"appearance_shift 3, {SHOWN}", f"appearance_shift 1, {SHOWN}"
SHIFTS = {AS_MOTION: (), HIGHER: ("training.appearance_shift=3",), LOWER: ("training.appearance_shift=1",)}
SAMPLED = "8 sampling steps"
"""The embedded model's single step asks it at t = 1 alone, and so nothing of what it learned at low noise."""

LESS = "ours: loses less than 0.2 dB"


def _rows(trial: Trial) -> Iterator[Outcome]:
    fewer = trial.train("training.motion_steps=100")
    yield replace(trial.generate(FEWER), steps=fewer)
    motion = trial.train()
    yield replace(trial.generate(FALLING), steps=motion)
    motion_alone = trial.keep()
    for label, shift in SHIFTS.items():
        motion_alone()
        steps = motion + trial.learn_appearance(REFERENCES, *shift)
        for how, sampling in {"": (), f", {SAMPLED}": ("generation.steps=8",)}.items():
            yield replace(trial.generate(label + how, *sampling, references=REFERENCES), steps=steps)
    for label, rate in RATES.items():
        motion = trial.train(*rate)
        yield replace(trial.generate(label), steps=motion)
        steps = motion + trial.learn_appearance(REFERENCES, *rate)
        yield replace(trial.generate(f"{label}, {SHOWN}", references=REFERENCES), steps=steps)


FEWER_STEPS = Study(
    "Training that ends by itself, and the times of the appearance steps (ours)",
    _rows,
    claims=(
        Claim(EARLY, CONSTANT, LESS, margin=-0.2),
        Claim(EARLY, FALLING, LESS, margin=-0.2),
        Claim(EARLY, FEWER, "ours: no worse than as many steps set by hand", margin=-0.2),
        Claim(f"{EARLY}, {SHOWN}", f"{CONSTANT}, {SHOWN}", LESS, margin=-0.2),
        Claim(HIGHER, AS_MOTION, LESS, margin=-0.2),
        Claim(LOWER, AS_MOTION, LESS, margin=-0.2),
        Claim(f"{HIGHER}, {SAMPLED}", f"{AS_MOTION}, {SAMPLED}", LESS, margin=-0.2),
        Claim(f"{LOWER}, {SAMPLED}", f"{AS_MOTION}, {SAMPLED}", LESS, margin=-0.2),
    ),
    later=REFERENCES,
)
