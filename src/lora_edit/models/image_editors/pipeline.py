"""Editing of one picture with diffusers' pipelines."""

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
"""Pixels per side of a token: eight per latent cell, two cells per token (all three pipelines)."""


def load_editor(editor: ImageEditor, folder: Path, loras: Loras, device: torch.device, dtype: torch.dtype) -> Any:
    """Load the pipeline with LoRAs; its parts take turns on the device.

    Raises `ModelError` for damaged files and LoRAs of other models.
    """
    import diffusers

    pipeline_class = getattr(diffusers, editor.pipeline)
    try:
        components = {"processor": _build_qwen_processor(folder)} if editor.pipeline.startswith("Qwen") else {}
        pipeline = pipeline_class.from_pretrained(folder, dtype=dtype, local_files_only=True, **components)
    except (OSError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{folder}: a part of {editor.name} cannot be read ({reason}); download it again") from error
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
    active = {name for names in pipeline.get_list_adapters().values() for name in names}
    for number, (file, _) in enumerate(loras):
        if f"lora{number}" not in active:
            raise ModelError(f"{file}: nothing in this LoRA fits {editor.name}; choose another, or leave out --lora")
    pipeline.set_adapters([f"lora{number}" for number in range(len(loras))], [strength for _, strength in loras])


def build_edit_arguments(editor: ImageEditor, image: Image.Image, instruction: str, mask: Image.Image | None) -> dict[str, Any]:
    """Build the pipeline's arguments except generator and callback.

    Input and output have the same size, so that kept pixels keep their place.
    """
    arguments: dict[str, Any] = {"image": image, "prompt": instruction, **editor.call_arguments}
    if editor.inpaints:
        assert mask is not None and editor.area_range is not None
        width, height = fit_size_to_area(image.size, editor.area_range)
        return {**arguments, "mask_image": mask, "width": width, "height": height}
    if editor.pipeline == "FluxKontextPipeline":
        width, height = choose_kontext_size(image.size)
        return {**arguments, "width": width, "height": height, "max_area": width * height}
    return arguments


def build_reference_arguments(editor: ImageEditor, layout: ReferenceLayout, instruction: str) -> dict[str, Any]:
    """Build the pipeline's arguments for a frame beside its reference, except generator and callback."""
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
    """Fit width and height to an area range, in whole tokens; the aspect ratio is kept as closely as these allow."""
    width, height = size
    scale = (min(max(width * height, area_range[0]), area_range[1]) / (width * height)) ** 0.5
    return max(TOKEN_SIZE, round(width * scale / TOKEN_SIZE) * TOKEN_SIZE), max(TOKEN_SIZE, round(height * scale / TOKEN_SIZE) * TOKEN_SIZE)


def choose_kontext_size(size: tuple[int, int]) -> tuple[int, int]:
    """Choose width and height: the training size to which the pipeline itself would resize such a picture."""
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
    """Edit `picture` `[H, W, 3]` uint8; returns uint8 `[h, w, 3]` at the pipeline's size. `mask` is `[H, W]` bool.

    A `reference`, uint8 of any size, is placed beside the picture while the mask is painted.
    """
    image = Image.fromarray(picture.numpy())
    hole = None if mask is None else Image.fromarray(mask.numpy()).convert("L")
    layout = None
    if reference is not None:
        assert hole is not None
        layout = build_reference_layout(Image.fromarray(reference.numpy()), image, hole)
    if layout is None:
        arguments = build_edit_arguments(editor, image, instruction, hole)
    else:
        arguments = build_reference_arguments(editor, layout, instruction)

    def report_step(_: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1, arguments["num_inference_steps"])
        return tensors

    output = pipeline(**arguments, generator=generator, callback_on_step_end=report_step).images[0]
    output = output if layout is None else layout.crop_frame(output)
    return torch.from_numpy(np.array(output.convert("RGB")))


def _build_qwen_processor(folder: Path) -> Any:
    """Build Qwen's processor for text with pictures. transformers' own needs torchvision, for videos, which are not used here."""
    from transformers import AutoImageProcessor, AutoTokenizer, BatchFeature, Qwen2VLProcessor

    class PictureProcessor(Qwen2VLProcessor):
        """Processor that repeats each picture's placeholder by the number of its tokens."""

        def __init__(self) -> None:
            self.image_processor = AutoImageProcessor.from_pretrained(folder / "processor", local_files_only=True)
            self.tokenizer = AutoTokenizer.from_pretrained(folder / "processor", local_files_only=True)

        def __call__(self, text: list[str], images: Any, padding: bool, return_tensors: str) -> Any:
            images_batch = self.image_processor(images=images, return_tensors=return_tensors)
            counts = [int(grid.prod()) // self.image_processor.merge_size**2 for grid in images_batch["image_grid_thw"]]
            expanded = []
            for line in text:
                pieces = line.split("<|image_pad|>")
                for count, piece in zip(counts, pieces[1:], strict=False):
                    pieces[0] += "<|image_pad|>" * count + piece
                expanded.append(pieces[0])
            return BatchFeature({**self.tokenizer(expanded, padding=padding, return_tensors=return_tensors), **images_batch})

    return PictureProcessor()
