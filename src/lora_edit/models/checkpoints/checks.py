"""Checks before weights are read: all parts exist, are whole, belong to the model, and fit into memory."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.headers import read_config, read_header
from lora_edit.models.checkpoints.hub import count_downloaded_bytes, is_repository
from lora_edit.models.checkpoints.layout import (
    GGUF_SUFFIX,
    PREPROCESSOR_PREFIXES,
    CheckpointParts,
    PartFiles,
    explain_mismatch,
    find_parts,
    get_part_config,
    list_required_parts,
    read_tensor_shapes,
)
from lora_edit.models.record import ModelRecord, find_differences

COMPANION_DIMENSIONS = (
    ("vae", "z_dim", "out_channels"),
    ("vae", "latent_channels", "out_channels"),
    ("text_encoder", "d_model", "text_dim"),
    ("text_encoder", "d_model", "caption_channels"),
    ("image_encoder", "hidden_size", "image_dim"),
    ("text_encoder", "hidden_size", "text_embed_dim"),
    ("text_encoder", "text_config.hidden_size", "text_embed_dim"),
    ("text_encoder_2", "hidden_size", "pooled_projection_dim"),
    ("text_encoder_2", "d_model", "text_embed_2_dim"),
    ("image_encoder", "hidden_size", "image_embed_dim"),
)
"""Part, the key of its configuration with its width, and the transformer's key that has to be equal, where a family has them."""

REPACKAGED_REPO = "the Hub's Comfy-Org/Wan_2.1_ComfyUI_repackaged, split_files/"
REPACKAGED_22_REPO = "the Hub's Comfy-Org/Wan_2.2_ComfyUI_Repackaged, split_files/"
WAN22_LATENT_CHANNELS = 48
COMPANION_ADVICE = {
    "vae": f"put wan_2.1_vae.safetensors ({REPACKAGED_REPO}vae) into its vae/",
    "text_encoder": f"put umt5_xxl_fp16.safetensors ({REPACKAGED_REPO}text_encoders) into its text_encoders/",
    "image_encoder": f"put clip_vision_h.safetensors ({REPACKAGED_REPO}clip_vision) into its clip_vision/",
    "tokenizer": "put tokenizer.json (the Hub's google/umt5-xxl) into its tokenizer/",
}
"""Advice for a missing companion."""


def verify_parts(record: ModelRecord, source: str) -> dict[str, PartFiles]:
    """Find the files of all parts and check them by configurations and headers alone. Raises `ModelError` with what to do."""
    checkpoint = find_parts(record, source)
    _check_configs(record, source, checkpoint)
    if checkpoint.missing:
        raise ModelError(_describe_missing_parts(record, source, checkpoint))
    for part_files in checkpoint.parts.values():
        _check_files(record, part_files)
    return checkpoint.parts


def _check_configs(record: ModelRecord, source: str, checkpoint: CheckpointParts) -> None:
    """Compare the configurations in diffusers' subfolders with the record's, also of parts without weights."""
    expected = record.read_transformer_config()
    checks: list[tuple[str, dict[str, Any]]] = [(part, expected) for part in record.transformer_parts]
    checks += [
        (part, {own: expected[key]}) for part, own, key in COMPANION_DIMENSIONS if key in expected and part in list_required_parts(record)
    ]
    for part, shape in checks:
        part_files = checkpoint.parts.get(part)
        folder = part_files.folder if part_files else Path(source) / part
        if folder is None or (part_files is None and not (folder / "config.json").is_file()):
            continue
        faults = find_differences(_flatten_config(read_config(folder.parent, part)), shape)
        if faults:
            raise ModelError(f"{source}: {part} is not that of {record.name} ({'; '.join(faults[:3])}); choose its own model or folder")


def _flatten_config(config: dict[str, Any]) -> dict[str, Any]:
    """Add the keys of nested configurations, as `text_config.hidden_size`."""
    inner = {f"{name}.{key}": value for name, part in config.items() if isinstance(part, dict) for key, value in part.items()}
    return config | inner


def _check_files(record: ModelRecord, part_files: PartFiles) -> None:
    """Check that every file is whole, and that a single file holds its part."""
    if part_files.part.startswith(PREPROCESSOR_PREFIXES):
        return
    if part_files.files[0].suffix == GGUF_SUFFIX:
        return check_gguf(part_files.files[0])
    headers = [read_header(file) for file in part_files.files]
    expected = get_part_config(record, part_files.part)
    # The names are known without a library; comparing every tensor needs the modules.
    from lora_edit.models.checkpoints.part_modules import verify_folder, verify_single_files

    if part_files.folder is not None:
        if part_files.part in record.transformer_parts and record.config:
            verify_folder(record, part_files)
        return
    if not expected:
        raise ModelError(f"{part_files.files[0]}: single files of {record.name} are not read; give a folder in diffusers' layout")
    if len(headers) == 1:
        fault = explain_mismatch(part_files.part, part_files.files[0], expected)
        if fault is None:
            first_key = next(iter(headers[0].shapes), "nothing")
            raise ModelError(
                f"{part_files.files[0]}: holds no transformer of Wan's (its first tensor is {first_key!r}); give the checkpoint "
                f"of {record.name}"
            )
        if fault:
            raise ModelError(f"{part_files.files[0]}: is not {record.name} ({fault}); choose the model that it is, or another file")
    verify_single_files(record, part_files)


def check_gguf(file: Path) -> None:
    """Raise `ModelError` when a file is no GGUF file, or package gguf is not installed."""
    from importlib.util import find_spec

    with file.open("rb") as opened:
        start = opened.read(4)
    if start != b"GGUF":
        raise ModelError(f"{file}: not a GGUF file; download it again, or give another")
    if find_spec("gguf") is None:
        raise ModelError(f"{file}: reading GGUF files needs the package gguf; install it with `pip install 'lora-edit[gguf]'`")


def check_trainable(model: str) -> None:
    """Raise `ModelError` for a model whose files do not allow training a LoRA."""
    if model.lower().endswith(GGUF_SUFFIX):
        name = model.partition("@")[0]
        raise ModelError(
            f"{model}: a GGUF file only generates; train with --model {name} or {name}@FILE.safetensors, then call `lora-edit generate RUN "
            f"--model {model}`"
        )


def _describe_missing_parts(record: ModelRecord, source: str, checkpoint: CheckpointParts) -> str:
    """Describe missing parts in one line, by the source of the model."""
    missing = ", ".join(f"{part} ({why})" for part, why in checkpoint.missing.items())
    name = record.name if source == record.repo else f"{record.name}@{source}"
    download = f"`lora-edit models --download {name}`"
    if is_repository(source) and not checkpoint.parts and not count_downloaded_bytes(source):
        terms = f"about {record.download_gb:g} GB, {record.license}"
        return (
            f"{record.name}: {source} is not downloaded ({terms}); get it with {download}, or give a folder or file as --model "
            f"{record.name}@PLACE"
        )
    if is_repository(source):
        return f"{record.name}: {source} is downloaded in part and lacks {missing}; {download} goes on"
    if any(part in record.transformer_parts for part in checkpoint.missing):
        return f"{source}: lacks {missing} of {record.name}; give the folder{' or file' if record.companions_config else ''} that has it"
    remedies = [get_companion_advice(record, part) for part in checkpoint.missing if part in COMPANION_ADVICE and record.companions_config]
    if record.companions_repo or record.repo:
        remedies.append(f"get the rest with {download}")
    return f"{source}: lacks {missing} of {record.name}; {', or '.join(filter(None, (', '.join(remedies[:-1]), *remedies[-1:])))}"


def holds_8_bit_weights(record: ModelRecord, source: str) -> bool:
    """Check by headers whether a transformer is a single file in 8 bits, which stay in memory; False where files are missing."""
    try:
        part_files = find_parts(record, source).parts.get(record.transformer_parts[0])
    except ModelError:
        return False
    if part_files is None or part_files.folder is not None or part_files.files[0].suffix == GGUF_SUFFIX:
        return False
    kinds = [kind for file in part_files.files for kind in read_header(file).dtypes.values()]
    return sum(kind.startswith("F8") for kind in kinds) > len(kinds) / 4


def get_companion_advice(record: ModelRecord, part: str) -> str:
    """Return what to do about a missing companion of a model whose single files are read."""
    if part == "vae" and get_part_config(record, part).get("z_dim") == WAN22_LATENT_CHANNELS:
        return f"put wan2.2_vae.safetensors ({REPACKAGED_22_REPO}vae) into its vae/"
    return COMPANION_ADVICE[part]


def check_memory(record: ModelRecord, parts: dict[str, PartFiles], dtype: str) -> None:
    """Raise `ModelError` when main memory cannot hold what has to be converted to `dtype` (safetensors' name, such as BF16).

    Autoencoder and image encoder compute in float32. Tensors that a file holds in the right format are mapped from it and need no memory.
    """
    from lora_edit.devices import get_free_host_bytes

    free = get_free_host_bytes()
    needed = sum(_count_converted_bytes(each, "F32" if each.part in ("vae", "image_encoder") else dtype) for each in parts.values())
    if needed > free:
        raise ModelError(
            f"{record.name}: takes {needed / 1e9:.1f} GB of main memory to load and {free / 1e9:.1f} GB are free; close other programs, "
            f"add swap space, give files in {dtype}, or choose a smaller model (`lora-edit models`)"
        )


def _count_converted_bytes(part_files: PartFiles, dtype: str) -> int:
    if part_files.part == "text_encoder" and part_files.files[0].suffix == GGUF_SUFFIX:  # dequantized as it is read
        return sum(map(prod, read_tensor_shapes(part_files.files[0]).values())) * (4 if dtype == "F32" else 2)
    if part_files.part.startswith(PREPROCESSOR_PREFIXES) or part_files.files[0].suffix == GGUF_SUFFIX:
        return 0
    headers = [read_header(file) for file in part_files.files]
    floats = [(header.shapes[key], kind) for header in headers for key, kind in header.dtypes.items() if kind.startswith(("F", "BF"))]
    if part_files.folder is None and part_files.part.startswith("transformer"):  # matrices in 8 bits stay in them
        floats = [(shape, kind) for shape, kind in floats if not (kind.startswith("F8") and len(shape) == 2)]
    numbers = sum(prod(shape) for shape, kind in floats if kind != dtype)
    return numbers * (4 if dtype == "F32" else 2)
