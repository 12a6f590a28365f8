"""CLIP score and input similarity: the two metrics of the paper's table 1 that compare pictures by their CLIP embeddings.

The paper (4.2) calls the similarity of "generated frames and edited first frame" CLIP score, and the similarity of "the generated frames
and the input frames on a per-frame basis" input similarity. It cites CLIP (Radford et al., 2021) without naming a checkpoint; `CHECKPOINT`
is the one that most work on video editing uses. Trivial results score well in both, see `trivial_baselines.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from lora_edit.errors import ModelError
from lora_edit.evaluation.metric_inputs import MetricInputs
from lora_edit.video.ranges import to_unit

CHECKPOINT = "openai/clip-vit-large-patch14"

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of red, green and blue in [0, 1] over CLIP's training pictures (openai/CLIP `clip/clip.py: _transform`)."""

BATCH_SIZE = 16


def load_clip_model(device: torch.device, checkpoint: str = CHECKPOINT) -> Any:
    """Load transformers' `CLIPModel` of the checkpoint (a Hub name or a folder), in float32, from this machine only.

    Raises `ModelError` when the checkpoint was not downloaded.
    """
    # transformers is slow to import, and only these metrics need it.
    from transformers import CLIPModel

    try:
        model = CLIPModel.from_pretrained(checkpoint, local_files_only=True, dtype=torch.float32)
    except OSError as error:
        raise ModelError(
            f"{checkpoint}: not on this machine, and clip_score and input_similarity need it; fetch it (about 1.7 GB) with "
            f"`hf download {checkpoint} config.json model.safetensors`, or leave both out of --metrics; the other metrics do not need it"
        ) from error
    return model.to(device).eval()


@torch.no_grad()
def embed_frames(model: Any, frames: torch.Tensor) -> torch.Tensor:
    """Compute CLIP's image embeddings of uint8 `[T, H, W, 3]`: `[T, D]` on the CPU, each of length 1.

    `model` is a `CLIPModel` or its image encoder, `CLIPVisionModelWithProjection`.
    """
    side = int(model.vision_model.config.image_size)
    embeddings = []
    for begin in range(0, len(frames), BATCH_SIZE):
        pixels = preprocess_frames(frames[begin : begin + BATCH_SIZE], side).to(model.device)
        embeddings.append(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output).float().cpu())
    return torch.nn.functional.normalize(torch.cat(embeddings), dim=-1)


def preprocess_frames(frames: torch.Tensor, side: int) -> torch.Tensor:
    """Preprocess uint8 `[T, H, W, 3]` for CLIP, `[T, 3, side, side]`: resize the shorter side (bicubic), crop the centre, normalise.

    The crop discards everything outside the central square; of a 832x480 clip that is two fifths.
    """
    crops = np.stack([_crop_center(frame.cpu().numpy(), side) for frame in frames])
    pixels = to_unit(torch.from_numpy(crops)).transpose(0, 1)
    return (pixels - _reshape_channels(MEAN)) / _reshape_channels(STD)


def measure_clip_score(inputs: MetricInputs, model: Any) -> float:
    """CLIP score of the result against the edited first frame."""
    assert inputs.first_frame is not None
    return clip_score(_embed_result(inputs, model), embed_frames(model, inputs.first_frame[None]))


def measure_input_similarity(inputs: MetricInputs, model: Any) -> float:
    """Input similarity of the result and the source."""
    return input_similarity(_embed_result(inputs, model), embed_frames(model, inputs.source.frames))


def clip_score(result: torch.Tensor, edited_first: torch.Tensor) -> float:
    """Compute the mean cosine similarity of the frames, `[T, D]`, to the edited first frame, `[1, D]`; both from `embed_frames`."""
    assert edited_first.shape == (1, result.shape[1])
    return float((result * edited_first).sum(-1).mean())


def input_similarity(result: torch.Tensor, source: torch.Tensor) -> float:
    """Compute the mean cosine similarity of result and source, frame by frame; both `[T, D]` from `embed_frames`."""
    assert result.shape == source.shape
    return float((result * source).sum(-1).mean())


def _embed_result(inputs: MetricInputs, model: Any) -> torch.Tensor:
    return inputs.share("clip_embeddings", lambda: embed_frames(model, inputs.result.frames))


def _crop_center(frame: np.ndarray, side: int) -> np.ndarray:
    height, width = frame.shape[:2]
    shorter = min(height, width)
    size = (side * width // shorter, side * height // shorter)
    resized = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
    top, left = (resized.shape[0] - side) // 2, (resized.shape[1] - side) // 2
    return resized[top : top + side, left : left + side]


def _reshape_channels(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)
