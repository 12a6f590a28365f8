"""The study of hints: none, frame 0 moved with the box or the flow, the explained edit with and without its confidence."""

from __future__ import annotations

from collections.abc import Iterator

from lora_edit.studies.study import Study
from lora_edit.studies.table import Claim
from lora_edit.studies.trial import PROPAGATED_EDIT, Outcome, Trial


def _run_hints(trial: Trial) -> Iterator[Outcome]:
    yield trial.run_flow_warp()
    yield trial.propagate_edit()
    for label, *settings in (
        ("no hint", "method.hint=none"),
        ("frame 0 moved with the box", "method.hint=box"),
        ("frame 0 moved along the flow", "method.hint=flow"),
        ("explained edit, one confidence for all", "method.hint_confidence=false"),
        ("explained edit with its confidence",),
    ):
        yield trial.train_and_generate(label, *settings)


HINTS = Study(
    "The hint where pixels are withheld (ours)",
    _run_hints,
    claims=(
        Claim("explained edit with its confidence", "no hint", "ours"),
        Claim("explained edit with its confidence", "frame 0 moved with the box", "ours"),
        Claim("explained edit with its confidence", "frame 0 moved along the flow", "ours"),
        Claim("explained edit with its confidence", "explained edit, one confidence for all", "ours: confidence decides"),
        Claim("explained edit with its confidence", PROPAGATED_EDIT, "ours: the model improves on its hint"),
    ),
)
