"""Captions of frames by Florence-2: the caption c of the paper (3.1).

Task, beams, length and the prefix that is removed are the reference's (LoRAEdit `inference.py`). The reference's checkpoint runs code of
its own; this module uses transformers' Florence-2, in the layout that `florence-community` publishes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError

from lora_edit.errors import ModelError

TASK_PROMPT = "<DETAILED_CAPTION>"
CAPTION_PREFIX = "The image shows "
NUM_BEAMS = 3
MAX_NEW_TOKENS = 1024
"""Maximum tokens of a caption."""


def has_captioner(source: str) -> bool:
    """Check for a Florence-2 of that name on this machine. Reads only its configuration."""
    from transformers import Florence2Config

    try:
        config, _ = Florence2Config.get_config_dict(source, local_files_only=True)
    except (OSError, ValueError):
        return False
    return config.get("model_type") == Florence2Config.model_type


def caption_frames(
    frames: Sequence[torch.Tensor],
    source: str,
    device: torch.device,
    dtype: torch.dtype,
    on_frame: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Caption each uint8 frame `[H, W, 3]`. The model is read from this machine only, and freed before this returns.

    Raises `ModelError` when the model is incomplete or of another kind.
    """
    model, processor = _load(source, device, dtype)
    captions = []
    for frame in frames:
        captions.append(_caption_frame(model, processor, frame))
        on_frame(len(captions), len(frames))
    del model, processor
    gc.collect()  # modules reference each other in cycles
    return captions


def _load(source: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import Florence2ForConditionalGeneration, Florence2Processor

    if not has_captioner(source):
        raise ModelError(f"{source}: no Florence-2 of that name on this machine; {_suggest_download(source)}")
    try:
        model, report = Florence2ForConditionalGeneration.from_pretrained(
            source, local_files_only=True, dtype=dtype, output_loading_info=True
        )
        processor = Florence2Processor.from_pretrained(source, local_files_only=True)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{source}: this Florence-2 is incomplete; {_suggest_download(source)}") from error
    if report["missing_keys"]:
        # Microsoft's own repositories: weights that are not found by name would stay random, and captions would be nonsense.
        raise ModelError(f"{source}: its weights are not in transformers' own layout; take one of florence-community's Florence-2 models")
    return model.to(device).eval(), processor


def _suggest_download(source: str) -> str:
    return "download the folder again" if Path(source).is_dir() else f"get it with `hf download {source}` (up to 3.3 GB)"


@torch.no_grad()
def _caption_frame(model: Any, processor: Any, frame: torch.Tensor) -> str:
    inputs = processor(text=TASK_PROMPT, images=Image.fromarray(frame.cpu().numpy()), return_tensors="pt").to(model.device, model.dtype)
    tokens = model.generate(**inputs, num_beams=NUM_BEAMS, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    text = " ".join(processor.batch_decode(tokens, skip_special_tokens=True)[0].split())
    return str(text.removeprefix(CAPTION_PREFIX))
