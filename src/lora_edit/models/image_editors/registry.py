"""Records of picture editors for the first frame: what is known of each before a file of it is opened. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.hub import find_snapshot_folder

FLUX_LICENSE = "FLUX.1 [dev] Non-Commercial License: not for commercial use, and to be accepted on the Hub before the download"
PARTS_WITHOUT_WEIGHTS = ("scheduler", "tokenizer", "tokenizer_2", "processor", "feature_extractor")


@dataclass(frozen=True)
class ImageEditor:
    """One editor.

    - `pipeline`: diffusers' class; `repo`: its Hub repository; `license`: its licence in words.
    - `download_gb`, `memory`: estimates, with the parts taking turns on the GPU.
    - `call_arguments`: the publisher's sampling settings.
    - `inpaints`: the editor fills a mask and needs one. Others edit the whole picture, and a mask decides which pixels are kept.
    - `area_range`: bounds of the pixels of a picture; None leaves the size to the pipeline.
    - `download_options`: options of `hf download` that exclude unused files.
    - `reference_arguments`: sampling settings for a reference picture beside the frame (`reference_layout.py`); None for editors that take
      none.
    """

    name: str
    summary: str
    pipeline: str
    repo: str
    license: str
    download_gb: float
    memory: str
    call_arguments: dict[str, Any]
    inpaints: bool = False
    area_range: tuple[int, int] | None = None
    download_options: str = ""
    reference_arguments: dict[str, Any] | None = None

    def build_download_command(self) -> str:
        """Build the command that downloads the editor."""
        return f"hf download {self.repo}{self.download_options}"


FLUX_FILL = ImageEditor(
    name="flux-fill",
    summary="paints what the instruction describes where the mask is white; ACE++'s LoRAs are made for it (the paper's choice)",
    pipeline="FluxFillPipeline",
    repo="black-forest-labs/FLUX.1-Fill-dev",
    license=FLUX_LICENSE,
    download_gb=34,
    memory="26 GB GPU, 48 GB RAM",
    call_arguments={"guidance_scale": 30.0, "num_inference_steps": 50, "max_sequence_length": 512},
    inpaints=True,
    area_range=(1024 * 1024, 2 * 1024 * 1024),
    download_options=' --exclude "flux1-*"',
    reference_arguments={"guidance_scale": 50.0, "num_inference_steps": 28, "max_sequence_length": 512},
)
FLUX_KONTEXT = ImageEditor(
    name="flux-kontext",
    summary="edits as the instruction says; a mask keeps the rest as it was",
    pipeline="FluxKontextPipeline",
    repo="black-forest-labs/FLUX.1-Kontext-dev",
    license=FLUX_LICENSE,
    download_gb=34,
    memory="26 GB GPU, 48 GB RAM",
    call_arguments={"guidance_scale": 2.5, "num_inference_steps": 28, "max_sequence_length": 512},
    download_options=' --exclude "flux1-*"',
)
QWEN_IMAGE_EDIT = ImageEditor(
    name="qwen-image-edit",
    summary="edits as the instruction says; a mask keeps the rest as it was",
    pipeline="QwenImageEditPipeline",
    repo="Qwen/Qwen-Image-Edit",
    license="Apache-2.0",
    download_gb=58,
    memory="45 GB GPU, 72 GB RAM",
    call_arguments={"true_cfg_scale": 4.0, "negative_prompt": " ", "num_inference_steps": 50},
)

EDITORS = (QWEN_IMAGE_EDIT, FLUX_KONTEXT, FLUX_FILL)


def find_editor(model: str) -> tuple[ImageEditor, Path]:
    """Find an editor by name, and the folder with all its files; `NAME@FOLDER` and `NAME@org/name` give that source.

    Reads no weights and never downloads. Raises `ModelError` for an unknown name, for missing or incomplete files, and for a folder that
    holds another pipeline.
    """
    name, at, source = model.partition("@")
    editor = next((each for each in EDITORS if each.name == name), None)
    if editor is None or bool(at) != bool(source):
        names = ", ".join(each.name for each in EDITORS)
        raise ModelError(f"--model {model}: no such editor; this version has {names}, and takes NAME@FOLDER")
    source = source or editor.repo
    folder = Path(source) if Path(source).is_dir() else find_snapshot_folder(source)
    remedy = f"get it with `{editor.build_download_command()}` (about {editor.download_gb:g} GB; {editor.license})"
    if folder is None:
        raise ModelError(f"{editor.name}: {source} is not on this machine; {remedy}, or give --model {editor.name}@FOLDER")
    index = _read_index(folder / "model_index.json")
    if index.get("_class_name") != editor.pipeline:
        raise ModelError(f"{folder}: holds {index.get('_class_name') or 'no pipeline'}, not {editor.pipeline}; {remedy}")
    missing = _find_missing_files(folder, index)
    if missing:
        raise ModelError(f"{folder}: {', '.join(missing[:3])} of {editor.name} missing; {remedy}")
    return editor, folder


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return index


def _find_missing_files(folder: Path, parts: dict[str, Any]) -> list[str]:
    """List the files or parts in the pipeline's index that the folder lacks."""
    missing = []
    for part, kind in parts.items():
        if part.startswith("_") or not isinstance(kind, list) or kind[0] is None:
            continue
        indices = list((folder / part).glob("*.safetensors.index.json"))
        shards = {shard for index in indices for shard in _read_index(index).get("weight_map", {}).values()}
        missing_shards = sorted(shard for shard in shards if not (folder / part / shard).is_file())
        missing += [f"{part}/{shard}" for shard in missing_shards]
        has_weights = part in PARTS_WITHOUT_WEIGHTS or shards or any((folder / part).glob("*.safetensors"))
        if not (folder / part).is_dir() or not has_weights:
            missing.append(part)
    return missing
