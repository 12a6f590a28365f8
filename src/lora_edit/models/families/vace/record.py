"""Records of VACE (2503.07598), which edits by a reference image without training: a baseline of the studies, not a model for edits."""

from __future__ import annotations

from pathlib import Path

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.checks import verify_parts
from lora_edit.models.checkpoints.headers import read_config
from lora_edit.models.checkpoints.hub import count_downloaded_bytes, find_snapshot_folder, is_repository, list_snapshots
from lora_edit.models.families.wan.record import UMT5_LENGTH, build_wan_preset
from lora_edit.models.record import AREA_480, Geometry, ModelRecord, Preset, find_differences


def vace_preset() -> Preset:
    """Fifty steps, shift 16 (Wan2.1 `generate.py`), guidance 5 (Wan2.1 `wan/vace.py`)."""
    return build_wan_preset(steps=50, shift=16.0, guidance_scale=5.0)


def list_published_overrides() -> tuple[str, ...]:
    """List the preset as values of `--set`."""
    return tuple(f"generation.{name}={value}" for name, value in vace_preset()["generation"].items())


VACE_1_3B = ModelRecord(
    name="wan2.1-vace-1.3b",
    summary="reference-guided editing without training, small",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=81, native_area=AREA_480),
    loader="lora_edit.models.families.vace.loading:load_vace",
    preset=vace_preset,
    memory="about 16 GB GPU, 32 GB RAM",
    repo="Wan-AI/Wan2.1-VACE-1.3B-diffusers",
    layout="diffusers",
    download_gb=20,
    config="wan2.1-vace-1.3b.json",
    text_length=UMT5_LENGTH,
    meta_sample="lora_edit.models.families.vace.conditioning:build_meta_sample",
    meta_autoencoder="AutoencoderKLWan",
    upstream="Wan2.1 wan/vace.py, diffusers pipelines/wan/pipeline_wan_vace.py",
)

VACE_14B = ModelRecord(
    name="wan2.1-vace-14b",
    summary="reference-guided editing without training; the paper's table 2",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=81, native_area=AREA_480),
    loader="lora_edit.models.families.vace.loading:load_vace",
    preset=vace_preset,
    memory="about 60 GB GPU, 64 GB RAM",
    repo="Wan-AI/Wan2.1-VACE-14B-diffusers",
    layout="diffusers",
    download_gb=75,
    config="wan2.1-vace-14b.json",
    text_length=UMT5_LENGTH,
    meta_sample="lora_edit.models.families.vace.conditioning:build_meta_sample",
    meta_autoencoder="AutoencoderKLWan",
    upstream="Wan2.1 wan/vace.py, diffusers pipelines/wan/pipeline_wan_vace.py",
)

VACE_MODELS = (VACE_1_3B, VACE_14B)


def locate_vace(model: str) -> tuple[ModelRecord, str]:
    """Find the record and the source of the weights by a name, a folder in diffusers' layout, or a Hub repository. Raises `ModelError`."""
    if "@" not in model and (known := find_vace(model)):
        return known
    folder = Path(model) if Path(model).is_dir() else find_snapshot_folder(model)
    if folder is None:
        raise ModelError(
            f"--vace {model}: no such folder or downloaded repository; give a folder in diffusers' layout, or "
            f"{' or '.join(record.repo for record in VACE_MODELS)}"
        )
    config = read_config(folder)
    for record in VACE_MODELS:
        if config.get("_class_name") == "WanVACETransformer3DModel" and not find_differences(config, record.read_transformer_config()):
            return record, str(folder.absolute()) if folder == Path(model) else model
    raise ModelError(
        f"--vace {model}: its transformer is not that of {' or '.join(record.name for record in VACE_MODELS)}; give one of these"
    )


def find_vace(name: str) -> tuple[ModelRecord, str] | None:
    """Find the record and source of `NAME`, `ORG/NAME` or `NAME@SOURCE` where that names a VACE; None otherwise."""
    name, _, source = name.partition("@")
    return next(((record, source or record.repo) for record in VACE_MODELS if name.lower() in (record.name, record.repo.lower())), None)


def check_vace(model: str) -> tuple[ModelRecord, str]:
    """Locate a VACE and check its parts by configurations and headers. Invalid VACE checkpoints are rejected before loading.

    Raises `ModelError`.
    """
    record, source = locate_vace(model)
    if is_repository(source) and not (list_snapshots(source) or count_downloaded_bytes(source)):
        raise ModelError(
            f"--vace {model}: {source} is not downloaded (about {record.download_gb:g} GB, {record.license}); get it with "
            f"`lora-edit models --download {record.name}`, or give a folder in diffusers' layout"
        )
    verify_parts(record, source)
    return record, source
