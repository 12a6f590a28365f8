"""Descriptions of the models for the terminal: facts of the catalogue and the download state on this machine."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass

import typer

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.checks import check_trainable, verify_parts
from lora_edit.models.checkpoints.download import (
    describe_download,
    download_missing_parts,
    get_download_state,
    get_free_disk_bytes,
    plan_downloads,
)
from lora_edit.models.checkpoints.hub import count_downloaded_bytes, get_hub_cache_folder, is_repository
from lora_edit.models.checkpoints.locate import find_weights, list_models, locate_model
from lora_edit.models.families.vace.record import find_vace
from lora_edit.models.record import Geometry, ModelRecord


@dataclass(frozen=True)
class ModelCard:
    """Facts of a model that help to choose one.

    `frames` is the longest window of the model (longer clips take several windows) and `size` a frame of its native area.
    `download_gb` is approximate; `repo` is empty for the embedded model. `state` is `included`, `downloaded`, `partial` or `missing`;
    `weights` describes the same in words.
    """

    name: str
    license: str
    frames: int
    size: str
    memory: str
    weights: str
    state: str
    summary: str
    needs: str
    repo: str
    download_gb: float

    def to_json(self) -> dict[str, object]:
        """Convert the card to a JSON record."""
        return asdict(self)


def find_models(name: str | None) -> list[ModelCard]:
    """Describe all models, or the one that `name` (any value of `--model`) names. Raises `ModelError` for an unknown name."""
    if name is None:
        return [_build_card(facts, facts.repo) for facts in list_models()]
    return [_build_card(*_locate_model(name))]


def require_model(name: str, for_training: bool = True) -> None:
    """Check before anything is written that all parts of the model are on this machine, complete and of the right shape.

    With `for_training` the model must also support training a LoRA. In a terminal, a missing model is downloaded after confirmation.
    Raises `ModelError`.
    """
    facts, source = locate_model(name)
    if for_training:
        check_trainable(name)
    if facts.layout == "included":
        return
    if get_download_state(facts, source) in ("missing", "partial") and is_interactive() and _can_download(facts, source):
        typer.echo(describe_download(facts, source), err=True)
        if typer.confirm("Download now?", err=True):
            download_missing_parts(facts, source)
    verify_parts(facts, source)


def get_missing_gigabytes(name: str) -> float:
    """Return the download size in GB of a model that is entirely missing, for which estimates use the catalogue alone.

    Other models have to pass `require_model`, and the size is 0. Raises `ModelError`.
    """
    facts, source = locate_model(name)
    if get_download_state(facts, source) == "missing":
        check_trainable(name)
        return facts.download_gb
    require_model(name)
    return 0


def describe_missing_download(name: str, gigabytes: float) -> str:
    """Describe the download of a model that is entirely missing: its size, its place, and the free space there."""
    folder = get_hub_cache_folder()
    return (
        f"`lora-edit models --download {name}` downloads about {gigabytes:g} GB into {folder}, "
        f"where {get_free_disk_bytes(folder) / 1e9:.0f} GB are free"
    )


def download_model(name: str) -> ModelCard:
    """Print the size and licence of the missing parts of a model to stderr, and download them. Raises `ModelError`."""
    facts, source = _locate_model(name)
    if get_download_state(facts, source) not in ("included", "downloaded"):
        typer.echo(describe_download(facts, source), err=True)
        download_missing_parts(facts, source)
    return _build_card(facts, source)


def _locate_model(name: str) -> tuple[ModelRecord, str]:
    """Locate a model for editing, or a VACE model for comparison."""
    return find_vace(name) or locate_model(name)


def is_interactive() -> bool:
    """Whether stdin and stderr are terminals, so that a question can be answered."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _can_download(facts: ModelRecord, source: str) -> bool:
    try:
        return bool(plan_downloads(facts, source))
    except ModelError:
        return False


def _build_card(facts: ModelRecord, source: str) -> ModelCard:
    return ModelCard(
        name=facts.name,
        license=facts.license,
        frames=facts.geometry.max_frames,
        size=format_frame_size(facts.geometry),
        memory=facts.memory,
        weights=_describe_weights(facts, source),
        state=get_download_state(facts, source),
        summary=facts.summary,
        needs=_describe_inputs(facts),
        repo=facts.repo,
        download_gb=facts.download_gb,
    )


def _describe_weights(facts: ModelRecord, source: str) -> str:
    state = get_download_state(facts, source)
    if state == "included":
        return state
    if state == "downloaded":
        return f"in {find_weights(facts, source)}"
    if state == "partial":
        progress = (
            f"{count_downloaded_bytes(source) / 1e9:.1f} of about {facts.download_gb:g} GB" if is_repository(source) else "parts missing"
        )
        return f"incomplete, {progress}"
    return f"not downloaded, about {facts.download_gb:g} GB"


def _describe_inputs(facts: ModelRecord) -> str:
    inputs = ["edited first frame", *(["edited last frame"] if facts.last_frame else []), *(["prompt"] if facts.reads_prompts else [])]
    return ", ".join(inputs)


def format_frame_size(geometry: Geometry) -> str:
    """Format `WIDTHxHEIGHT` of a frame of whole tokens with the native area of the model, as close to 16:9 as possible."""
    units = geometry.native_area // geometry.token_size**2
    rows = min((n for n in range(1, units + 1) if units % n == 0), key=lambda n: abs(units / n**2 - 16 / 9))
    return f"{units // rows * geometry.token_size}x{rows * geometry.token_size}"
