"""Segmenters by name: `embedded`, and `sam2:FOLDER` for models of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lora_edit.errors import InputError, MaskError

if TYPE_CHECKING:
    import torch

    from lora_edit.masks.boxes import KeyframeBox
    from lora_edit.masks.segmenter import Segmenter

EMBEDDED = "embedded"
"""Name of the segmenter that needs no model."""


def check_segmenter_name(name: str) -> None:
    """Raise `MaskError` for a name other than `embedded` and `sam2:FOLDER`."""
    kind, _, source = name.partition(":")
    if not (name == EMBEDDED or (kind == "sam2" and source)):
        raise MaskError(f"--segmenter {name}: no such segmenter; write embedded, or sam2:FOLDER with a downloaded SAM 2 or SAM 3 model")


def make_segmenter_absolute(name: str) -> str:
    """Make the folder in a name absolute; a Hub ID stays as it is."""
    kind, _, source = name.partition(":")
    return f"{kind}:{Path(source).absolute()}" if source and Path(source).exists() else name


def load_segmenter(name: str) -> Segmenter:
    """Load a segmenter. Raises `MaskError` for another name, `ModelError` for another model."""
    check_segmenter_name(name)
    if name == EMBEDDED:
        from lora_edit.masks.embedded_segmenter import EmbeddedSegmenter
        from lora_edit.masks.saliency import load_saliency_network

        return EmbeddedSegmenter(load_saliency_network())
    from lora_edit.masks.sam2 import Sam2Segmenter

    return Sam2Segmenter(make_segmenter_absolute(name).partition(":")[2])


def takes_text(name: str) -> bool:
    """Return whether a segmenter finds objects by a description."""
    try:
        check_text_prompt("object", name)
    except InputError:
        return False
    return True


def check_text_prompt(text: str, name: str) -> None:
    """Raise `MaskError` for an empty text or a segmenter that takes none, and `ModelError` for a model without SAM 3's detector."""
    if not text.strip():
        raise MaskError('--segment: the text is empty; name the object, for instance --segment "the red car"')
    check_segmenter_name(name)
    if name == EMBEDDED:
        raise MaskError(
            f"--segment {text}: the embedded segmenter takes no text; add --segmenter sam2:FOLDER with a SAM 3 model, or mark the object "
            "with --point"
        )
    from lora_edit.masks.sam3_detector import check_detector

    check_detector(make_segmenter_absolute(name).partition(":")[2])


def detect_prompts(name: str, frame: torch.Tensor, text: str) -> list[KeyframeBox]:
    """Detect the objects that `text` describes in the first frame `[H, W, 3]` uint8, with the detector of segmenter `name`.

    Returns a box prompt for each. Raises `MaskError` if there is none, and as `check_text_prompt` does.
    """
    check_text_prompt(text, name)
    from lora_edit.masks.boxes import KeyframeBox
    from lora_edit.masks.sam3_detector import Sam3Detector

    detections = Sam3Detector(make_segmenter_absolute(name).partition(":")[2]).detect(frame, text)
    if not detections:
        raise MaskError(f"--segment {text}: nothing like that is in the first frame; describe it in other words, or mark it with --point")
    names = [text] if len(detections) == 1 else [f"{text} {number}" for number in range(1, len(detections) + 1)]
    return [KeyframeBox(each.box, 0, each_name) for each, each_name in zip(detections, names, strict=True)]
