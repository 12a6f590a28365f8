"""DeQA score (You et al., CVPR 2025, arXiv 2501.11561): the quality of each picture from 1 to 5, rated by a language model.

The third metric of the paper's table 1. It depends on neither source nor edit: an unedited copy scores as well as the source does.

The checkpoint contains its own code. Its `score` takes a list of pictures and returns a number for each: the mean of the five words
excellent, good, fair, poor and bad (5 to 1), weighted by their probabilities (zhiyuanyou/DeQA-Score, `README.md` and
`src/evaluate/scorer.py`). That code is written for transformers 4.36.1 (its README; issues 22 and 31 there), far older than what this
package needs, so `load_deqa` is expected to fail. `tools/deqa_scores.py` measures a folder of frames in a separate environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from lora_edit.errors import ModelError
from lora_edit.evaluation.checks import as_array
from lora_edit.evaluation.metric_inputs import MetricInputs

CHECKPOINT = "zhiyuanyou/DeQA-Score-Mix3"
TRANSFORMERS_VERSION = "4.36.1"

BATCH_SIZE = 4

Scorer = Callable[[list[Image.Image]], Any]
"""A function that takes a list of pictures and returns a score for each, as a tensor or a list."""

# Errors of code that was written for another version of a library.
_INCOMPATIBILITY_ERRORS = (ImportError, AttributeError, NameError, KeyError, TypeError, ValueError, RuntimeError)


def load_deqa(device: torch.device | None = None, checkpoint: str = CHECKPOINT) -> Scorer:
    """Load the checkpoint's own `score`. This runs code of the checkpoint.

    `device` is not used: accelerate distributes the model over the devices that have memory for it. Raises `ModelError` when the
    checkpoint was not downloaded or does not run with this version of transformers.
    """
    import transformers

    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint,
            trust_remote_code=True,
            local_files_only=True,
            attn_implementation="eager",
            dtype=torch.float16,
            device_map="auto",
        )
        score: Scorer = model.score
    except OSError as error:
        raise ModelError(
            f"{checkpoint}: not on this machine, and deqa needs it; its code is for transformers {TRANSFORMERS_VERSION}, so score "
            "the frames with tools/deqa_scores.py in a separate environment (or try again after "
            f"`hf download {checkpoint}`, about 16 GB), or leave deqa out of --metrics; the other metrics do not need it"
        ) from error
    except _INCOMPATIBILITY_ERRORS as error:
        raise ModelError(
            f"{checkpoint}: its code is written for transformers {TRANSFORMERS_VERSION} and does not run with "
            f"{transformers.__version__} "
            f"({type(error).__name__}: {str(error)[:120]}); score the frames with tools/deqa_scores.py in a separate environment"
        ) from error
    return score


def measure_deqa(inputs: MetricInputs, score: Scorer) -> float:
    """DeQA score of the result."""
    return deqa(inputs.result.frames, score)


def deqa(frames: torch.Tensor, score: Scorer) -> float:
    """Compute the mean score, 1 (bad) to 5 (excellent), of the frames `[T, H, W, 3]` uint8."""
    pictures = [Image.fromarray(as_array(frame)) for frame in frames]
    scores: list[float] = []
    for begin in range(0, len(pictures), BATCH_SIZE):
        scores.extend(float(value) for value in score(pictures[begin : begin + BATCH_SIZE]))
    assert len(scores) == len(pictures)
    return sum(scores) / len(scores)
