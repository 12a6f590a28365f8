"""One picture through diffusers' editing pipelines, and back at its own size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError

from lora_edit.errors import ModelError
from lora_edit.models.image_editors.reference_layout import ReferenceLayout, build_reference_layout
from lora_edit.models.image_editors.registry import ImageEditor

Loras = Sequence[tuple[Path, float]]
TOKEN_SIZE = 16
"""Pixels per token's side: eight per latent cell, two cells per token (all three pipelines)."""


def load_editor(editor: ImageEditor, folder: Path, loras: Loras, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline with the LoRAs, its parts taking turns on the device.

    Raises `ModelError` for damaged files and LoRAs of other models.
    """
    import diffusers

    kind = getattr(diffusers, editor.pipeline)
    try:
        own = {"processor": _build_qwen_processor(folder)} if editor.pipeline.startswith("Qwen") else {}
        pipeline = kind.from_pretrained(folder, dtype=dtype, local_files_only=True, **own)
    except (OSError, SafetensorError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{folder}: a part of {editor.name} cannot be read ({first}); download it again") from error
    for number, (file, _) in enumerate(loras):
        try:
            pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=f"lora{number}", local_files_only=True)
        except (ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"{file}: this LoRA is not for {editor.name}; choose another, or leave out --lora") from error
    if loras:
        _set_strengths(pipeline, editor, loras)
    pipeline.set_progress_bar_config(disable=True)
    if device.type != "cpu":
        pipeline.enable_model_cpu_offload(device=device)
    return pipeline


def _set_strengths(pipeline: Any, editor: ImageEditor, loras: Loras) -> None:
    acting = {name for names in pipeline.get_list_adapters().values() for name in names}
    for number, (file, _) in enumerate(loras):
        if f"lora{number}" not in acting:
            raise ModelError(f"{file}: nothing in this LoRA fits {editor.name}; choose another, or leave out --lora")
    pipeline.set_adapters([f"lora{number}" for number in range(len(loras))], [strength for _, strength in loras])


def build_edit_arguments(editor: ImageEditor, image: Image.Image, instruction: str, mask: Image.Image | None) -> dict[str, Any]:
    """What the pipeline is called with, but for generator and callback.

    In each the picture that goes in and the one that comes out have one size, so that what is kept stays in its place.
    """
    given: dict[str, Any] = {"image": image, "prompt": instruction, **editor.call_arguments}
    if editor.inpaints:
        assert mask is not None and editor.area_range is not None
        width, height = fit_size_to_area(image.size, editor.area_range)
        return {**given, "mask_image": mask, "width": width, "height": height}
    if editor.pipeline == "FluxKontextPipeline":
        width, height = choose_kontext_size(image.size)
        return {**given, "width": width, "height": height, "max_area": width * height}
    return given


def build_reference_arguments(editor: ImageEditor, layout: ReferenceLayout, instruction: str) -> dict[str, Any]:
    """The same for a frame beside its reference."""
    assert editor.reference_arguments is not None
    width, height = layout.image.size
    return {
        "image": layout.image,
        "mask_image": layout.mask,
        "prompt": instruction,
        "width": width,
        "height": height,
        **editor.reference_arguments,
    }


def fit_size_to_area(size: tuple[int, int], area_range: tuple[int, int]) -> tuple[int, int]:
    """Width and height in whole tokens, of the picture's shape as nearly as these allow, its area within the bounds."""
    width, height = size
    scale = (min(max(width * height, area_range[0]), area_range[1]) / (width * height)) ** 0.5
    return max(TOKEN_SIZE, round(width * scale / TOKEN_SIZE) * TOKEN_SIZE), max(TOKEN_SIZE, round(height * scale / TOKEN_SIZE) * TOKEN_SIZE)


def choose_kontext_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height: the one of the sizes it was trained at to which the pipeline itself brings such a picture."""
    sizes = import_module("diffusers.pipelines.flux.pipeline_flux_kontext").PREFERRED_KONTEXT_RESOLUTIONS
    _, width, height = min((abs(size[0] / size[1] - width / height), width, height) for width, height in sizes)
    return width, height


def edit_image(
    pipeline: Any,
    editor: ImageEditor,
    picture: torch.Tensor,
    instruction: str,
    mask: torch.Tensor | None,
    generator: torch.Generator,
    on_step: Callable[[int, int], None],
    reference: torch.Tensor | None = None,
) -> torch.Tensor:
    """The edited picture, uint8 `[h, w, 3]` at the pipeline's size, of `picture` `[H, W, 3]` uint8; `mask` is `[H, W]` bool.

    A `reference`, uint8 of any size, stands beside the picture while the mask is painted.
    """
    image = Image.fromarray(picture.numpy())
    hole = None if mask is None else Image.fromarray(mask.numpy()).convert("L")
    pair = None
    if reference is not None:
        assert hole is not None
        pair = build_reference_layout(Image.fromarray(reference.numpy()), image, hole)
    given = build_edit_arguments(editor, image, instruction, hole) if pair is None else build_reference_arguments(editor, pair, instruction)

    def stepped(_: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1, given["num_inference_steps"])
        return tensors

    made = pipeline(**given, generator=generator, callback_on_step_end=stepped).images[0]
    made = made if pair is None else pair.crop_frame(made)
    return torch.from_numpy(np.array(made.convert("RGB")))


def _build_qwen_processor(folder: Path) -> Any:
    """Qwen's processor for text with pictures. transformers' own wants torchvision, for clips, which are none of our business."""
    from transformers import AutoImageProcessor, AutoTokenizer, BatchFeature, Qwen2VLProcessor

    class PictureProcessor(Qwen2VLProcessor):
        """Every picture's placeholder, repeated as often as the picture has tokens."""

        def __init__(self) -> None:
            self.image_processor = AutoImageProcessor.from_pretrained(folder / "processor", local_files_only=True)
            self.tokenizer = AutoTokenizer.from_pretrained(folder / "processor", local_files_only=True)

        def __call__(self, text: list[str], images: Any, padding: bool, return_tensors: str) -> Any:
            seen = self.image_processor(images=images, return_tensors=return_tensors)
            counts = [int(grid.prod()) // self.image_processor.merge_size**2 for grid in seen["image_grid_thw"]]
            whole = []
            for line in text:
                pieces = line.split("<|image_pad|>")
                for count, piece in zip(counts, pieces[1:], strict=False):
                    pieces[0] += "<|image_pad|>" * count + piece
                whole.append(pieces[0])
            return BatchFeature({**self.tokenizer(whole, padding=padding, return_tensors=return_tensors), **seen})

    return PictureProcessor()
