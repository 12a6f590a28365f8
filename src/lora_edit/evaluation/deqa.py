"""DeQA score (You et al., CVPR 2025, arXiv 2501.11561): how good does each picture look, by a language model, from 1 to 5?

The third figure of the paper's table 1. It knows neither source nor edit: an unedited copy scores as well as the source does.

The checkpoint brings its own code, whose `score` takes a list of pictures and returns a number for each: the mean of the five words
excellent, good, fair, poor and bad (5 to 1) under their probabilities (zhiyuanyou/DeQA-Score, `README.md` and
`src/evaluate/scorer.py`). That code is written for transformers 4.36.1 (its README; issues 22 and 31 there), far older than what this
package needs, so that `load_deqa` is expected to fail beside it; `tools/deqa_scores.py` measures a folder of frames in an environment
of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from lora_edit.errors import ModelError
from lora_edit.evaluation.checks import as_array

CHECKPOINT = "zhiyuanyou/DeQA-Score-Mix3"
TRANSFORMERS_VERSION = "4.36.1"

BATCH_SIZE = 4

Scorer = Callable[[list[Image.Image]], Any]
"""Pictures to as many scores: a tensor or a list."""

# What code that was written for another version of a library raises.
_INCOMPATIBILITY_ERRORS = (ImportError, AttributeError, NameError, KeyError, TypeError, ValueError, RuntimeError)


def load_deqa(checkpoint: str = CHECKPOINT) -> Scorer:
    """The checkpoint's own `score`, on whatever devices have room. It runs code that comes with the checkpoint.

    Raises `ModelError` when it was not downloaded or does not run beside this version of transformers.
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
            f"{checkpoint}: not on this machine, which deqa needs; its code is for transformers {TRANSFORMERS_VERSION}, so score "
            f"the frames "
            f"with tools/deqa_scores.py in an environment of its own (or try here after `hf download {checkpoint}`, about 16 GB); "
            "the other metrics do without"
        ) from error
    except _INCOMPATIBILITY_ERRORS as error:
        raise ModelError(
            f"{checkpoint}: its own code is written for transformers {TRANSFORMERS_VERSION} and does not run with "
            f"{transformers.__version__} "
            f"({type(error).__name__}: {str(error)[:120]}); score the frames with tools/deqa_scores.py in an environment of its own"
        ) from error
    return score


def deqa(frames: torch.Tensor, score: Scorer) -> float:
    """Mean score, 1 (bad) to 5 (excellent), of the frames `[T, H, W, 3]` uint8."""
    pictures = [Image.fromarray(as_array(frame)) for frame in frames]
    scores: list[float] = []
    for begin in range(0, len(pictures), BATCH_SIZE):
        scores.extend(float(value) for value in score(pictures[begin : begin + BATCH_SIZE]))
    assert len(scores) == len(pictures)
    return sum(scores) / len(scores)
