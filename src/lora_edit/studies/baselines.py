"""The finished edit beside what takes seconds without a model: the figures that decide whether a person would keep it."""

from __future__ import annotations

from collections.abc import Iterator

from lora_edit.studies.experiments import BASE, DELIVERED, DELIVERED_LATER, DETAIL_ON, FLOW, HIDDEN
from lora_edit.studies.study import Study
from lora_edit.studies.table import Claim
from lora_edit.studies.trial import BEST, PREDICTED, Outcome, Trial

ALONE = "the model alone"


def _baselines(trial: Trial) -> Iterator[Outcome]:
    classical = (trial.flow_warp(), trial.colour_map(), trial.moving_layer())
    yield from (trial.no_edit(), *classical, *trial.best_of(classical), trial.predicted())
    trial.forget()
    yield trial.generate(BASE)
    yield trial.edited(ALONE)
    yield trial.generate(DELIVERED, DETAIL_ON)
    if trial.later >= 2:
        yield trial.predicted(references=2)
        trial.learn_appearance(2)
        yield trial.generate(DELIVERED_LATER, DETAIL_ON, references=2)


BASELINES = Study(
    "The edit as delivered, beside what takes seconds (ours)",
    _baselines,
    claims=(
        Claim(DELIVERED, BEST, "better than the best of the three, chosen per scene afterwards", margin=1.0),
        Claim(PREDICTED, BEST, "so is the prediction alone", margin=1.0),
        Claim(ALONE, FLOW, "the model alone is ahead of a flow warp", margin=1.0),
        Claim(ALONE, FLOW, "where something comes to sight too", kinds=HIDDEN),
        Claim(ALONE, PREDICTED, "the model improves what it is shown"),
        Claim(ALONE, BASE, "a LoRA on the one clip helps"),
    ),
)
