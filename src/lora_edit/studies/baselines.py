"""The study of the finished edit against baselines that take seconds and need no model."""

from __future__ import annotations

from collections.abc import Iterator

from lora_edit.studies.experiments import BASE_MODEL, DETAIL_ON, DISOCCLUSION_KINDS, FINAL_EDIT, FINAL_EDIT_WITH_REFERENCES, FLOW_WARP
from lora_edit.studies.study import Study
from lora_edit.studies.table import Claim
from lora_edit.studies.trial import BEST_BASELINE, PROPAGATED_EDIT, Outcome, Trial

MODEL_ALONE = "the model alone"


def _run_baselines(trial: Trial) -> Iterator[Outcome]:
    classical = (trial.run_flow_warp(), trial.run_colour_map(), trial.run_moving_layer())
    yield from (trial.copy_source(), *classical, *trial.select_best(classical), trial.propagate_edit())
    trial.unload_lora()
    yield trial.generate(BASE_MODEL)
    yield trial.train_and_generate(MODEL_ALONE)
    yield trial.generate(FINAL_EDIT, DETAIL_ON)
    if trial.max_references >= 2:
        yield trial.propagate_edit(num_references=2)
        trial.learn_appearance(2)
        yield trial.generate(FINAL_EDIT_WITH_REFERENCES, DETAIL_ON, num_references=2)


BASELINES = Study(
    "The edit as delivered, against baselines that take seconds (ours)",
    _run_baselines,
    claims=(
        Claim(FINAL_EDIT, BEST_BASELINE, "better than the best of the three, selected per scene by the true edit", margin=1.0),
        Claim(PROPAGATED_EDIT, BEST_BASELINE, "the prediction alone is better than the best of the three", margin=1.0),
        Claim(MODEL_ALONE, FLOW_WARP, "the model alone is ahead of a flow warp", margin=1.0),
        Claim(MODEL_ALONE, FLOW_WARP, "also where content becomes visible", kinds=DISOCCLUSION_KINDS),
        Claim(MODEL_ALONE, PROPAGATED_EDIT, "the model improves on its hint"),
        Claim(MODEL_ALONE, BASE_MODEL, "a LoRA on the one clip helps"),
    ),
)
