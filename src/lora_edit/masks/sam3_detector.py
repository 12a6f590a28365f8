"""Detection of objects by a description, with SAM 3's detector (Carion et al., 2025) by transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from lora_edit.devices import pick_device
from lora_edit.errors import ModelError
from lora_edit.masks.sam2 import SAM3_STATISTICS, find_model_folder, load_pretrained, preprocess_frame, read_image_statistics, read_json
from lora_edit.types import Box

DETECTOR_TYPES = ("sam3_video", "sam3")
"""`model_type` of checkpoints that contain the detector."""

MAX_TEXT_TOKENS = 32
"""Length of the detector's text input in tokens."""

SCORE_THRESHOLD, MAX_OVERLAP = 0.5, 0.1
"""Score from which a detection counts, and overlap (IoU of masks) from which the lower of two scores is dropped, as in SAM 3's video
model (transformers, `Sam3VideoConfig`)."""


@dataclass(frozen=True)
class Detection:
    """A detected object: box in source pixels and score in [0, 1]."""

    box: Box
    score: float


class Sam3Detector:
    """The detector in a folder with SAM 3's files, or under a Hub ID that is in the local cache. Raises `ModelError` for anything else."""

    def __init__(self, model_id_or_path: str, device: str = "auto") -> None:
        folder = check_detector(model_id_or_path)
        import transformers

        self._model = load_pretrained(transformers.Sam3Model, folder, model_id_or_path).to(pick_device(device)).eval()
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelError(f"{model_id_or_path}: the tokenizer is missing or damaged; download the model again") from error
        square = self._model.config.image_size
        self._image_size = int(square if isinstance(square, int) else square[0])
        self._mean, self._std = read_image_statistics(folder, SAM3_STATISTICS)

    @torch.inference_mode()
    def detect(self, frame: torch.Tensor, text: str) -> list[Detection]:
        """Detect all objects that `text` describes in a frame `[H, W, 3]` uint8, by descending score."""
        pixels = preprocess_frame(frame, self._image_size, self._mean, self._std)[None].to(self._model.device)
        tokens = self._tokenizer(text, return_tensors="pt", padding="max_length", max_length=MAX_TEXT_TOKENS, truncation=True)
        tokens = tokens.to(self._model.device)
        output = self._model(pixel_values=pixels, input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        scores = output.pred_logits[0].sigmoid() * output.presence_logits[0].sigmoid()
        height, width = frame.shape[:2]
        boxes = (output.pred_boxes[0] * torch.tensor([width, height, width, height], device=scores.device)).cpu()
        order = scores.argsort(descending=True)
        order = order[scores[order] > SCORE_THRESHOLD]
        kept = drop_overlapping(output.pred_masks[0, order] > 0)
        return [_build_detection(boxes[number], float(scores[number])) for number in order[kept].tolist()]


def check_detector(model_id_or_path: str) -> Path:
    """Return the folder of a checkpoint that contains the detector. Raises `ModelError` for other models."""
    folder = find_model_folder(model_id_or_path)
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in DETECTOR_TYPES:
        raise ModelError(
            f"{model_id_or_path}: {kind or 'the model'} takes no text; --segment needs a SAM 3 model (--segmenter sam2:FOLDER), "
            "or mark the object with --point"
        )
    return folder


def drop_overlapping(masks: torch.Tensor) -> list[int]:
    """Return the indices of masks `[N, h, w]` bool, in order of score, that overlap no earlier kept one by `MAX_OVERLAP`."""
    kept: list[int] = []
    areas = masks.flatten(1).sum(1)
    for number, mask in enumerate(masks):
        shared = [int((mask & masks[other]).sum()) for other in kept]
        unions = [int(areas[number] + areas[other]) - each for other, each in zip(kept, shared, strict=True)]
        if all(each <= MAX_OVERLAP * max(1, union) for each, union in zip(shared, unions, strict=True)):
            kept.append(number)
    return kept


def _build_detection(corners: torch.Tensor, score: float) -> Detection:
    left, top, right, bottom = corners.tolist()
    return Detection(Box(left, top, max(right - left, 1.0), max(bottom - top, 1.0)), score)
