"""VACE (2503.07598), which edits by a reference picture without any training: what studies compare with, not a model to edit with."""

from __future__ import annotations

from pathlib import Path

from lora_edit.errors import ModelError
from lora_edit.models.catalog.checks import survey
from lora_edit.models.catalog.facts import Geometry, ModelFacts, Preset, differences
from lora_edit.models.catalog.headers import read_config
from lora_edit.models.catalog.hub import downloaded_bytes, hub_folder, is_repository, snapshots
from lora_edit.models.catalog.known import AREA_480, UMT5_LENGTH


def vace_preset() -> Preset:
    """Fifty steps, shift 16 (Wan2.1 `generate.py`), guidance 5 (Wan2.1 `wan/vace.py`)."""
    return {"generation": {"steps": 50, "shift": 16.0, "guidance_scale": 5.0}}


def published() -> tuple[str, ...]:
    """The same as `--set` takes it."""
    return tuple(f"generation.{name}={value}" for name, value in vace_preset()["generation"].items())


VACE_1_3B = ModelFacts(
    name="wan2.1-vace-1.3b",
    summary="reference-guided editing without training, small",
    license="Apache-2.0",
    geometry=Geometry(cell=8, group=4, token=16, max_frames=81, area=AREA_480),
    loader="lora_edit.models.vace:load_vace",
    preset=vace_preset,
    memory="about 16 GB GPU, 32 GB RAM",
    repo="Wan-AI/Wan2.1-VACE-1.3B-diffusers",
    layout="diffusers",
    download_gb=20,
    config="wan2.1-vace-1.3b.json",
    text_length=UMT5_LENGTH,
    upstream="Wan2.1 wan/vace.py, diffusers pipelines/wan/pipeline_wan_vace.py",
)

VACE_14B = ModelFacts(
    name="wan2.1-vace-14b",
    summary="reference-guided editing without training; the paper's table 2",
    license="Apache-2.0",
    geometry=Geometry(cell=8, group=4, token=16, max_frames=81, area=AREA_480),
    loader="lora_edit.models.vace:load_vace",
    preset=vace_preset,
    memory="about 60 GB GPU, 64 GB RAM",
    repo="Wan-AI/Wan2.1-VACE-14B-diffusers",
    layout="diffusers",
    download_gb=75,
    config="wan2.1-vace-14b.json",
    text_length=UMT5_LENGTH,
    upstream="Wan2.1 wan/vace.py, diffusers pipelines/wan/pipeline_wan_vace.py",
)

VACES = (VACE_1_3B, VACE_14B)


def locate_vace(called: str) -> tuple[ModelFacts, str]:
    """Facts and the place of the weights, of a name, a folder in diffusers' layout, or a Hub repository. Raises `ModelError`."""
    if "@" not in called and (known := called_vace(called)):
        return known
    folder = Path(called) if Path(called).is_dir() else hub_folder(called)
    if folder is None:
        raise ModelError(
            f"--vace {called}: no such folder or downloaded repository; give a folder in diffusers' layout, or "
            f"{' or '.join(facts.repo for facts in VACES)}"
        )
    found = read_config(folder)
    for facts in VACES:
        if found.get("_class_name") == "WanVACETransformer3DModel" and not differences(found, facts.transformer_config()):
            return facts, str(folder.absolute()) if folder == Path(called) else called
    raise ModelError(f"--vace {called}: its transformer is not that of {' or '.join(facts.name for facts in VACES)}; give one of these")


def called_vace(name: str) -> tuple[ModelFacts, str] | None:
    """Facts and place of `NAME`, `ORG/NAME` or `NAME@PLACE` where that names a VACE; None otherwise."""
    known, _, place = name.partition("@")
    return next(((facts, place or facts.repo) for facts in VACES if known.lower() in (facts.name, facts.repo.lower())), None)


def check_vace(called: str) -> tuple[ModelFacts, str]:
    """`locate_vace`, and see that its parts are here, whole and fitting, by configurations and headers alone. Raises `ModelError`."""
    facts, source = locate_vace(called)
    if is_repository(source) and not (snapshots(source) or downloaded_bytes(source)):
        raise ModelError(
            f"--vace {called}: {source} is not downloaded (about {facts.download_gb:g} GB, {facts.license}); get it with `lora-edit models "
            f"--download {facts.name}`, or give a folder in diffusers' layout"
        )
    survey(facts, source)
    return facts, source
