"""The models of this version, for people: the catalogue's records, and what of them lies on this machine."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass

import typer

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.checks import check_trainable, verify_parts
from lora_edit.models.checkpoints.download import describe_download, download_missing_parts, get_download_state, plan_downloads
from lora_edit.models.checkpoints.hub import count_downloaded_bytes, is_repository
from lora_edit.models.checkpoints.locate import find_weights, list_models, locate_model
from lora_edit.models.families.vace.record import find_vace
from lora_edit.models.record import Geometry, ModelRecord


@dataclass(frozen=True)
class ModelCard:
    """What a person needs to know to choose a model.

    `frames` is the longest window it takes at once (longer clips are made window by window) and `size` a frame of the area it works
    best at. `download_gb` is approximate; `repo` is empty for the embedded model. `state` is `included`, `downloaded`, `partial` or
    `missing`, and `weights` says the same for people.
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
        """The card as a record."""
        return asdict(self)


def find_models(name: str | None) -> list[ModelCard]:
    """Every model, or the named one (any of the names that `--model` takes). Raises `ModelError` for an unknown name."""
    if name is None:
        return [_build_card(facts, facts.repo) for facts in list_models()]
    return [_build_card(*_locate_model(name))]


def require_model(name: str, for_training: bool = True) -> None:
    """See before anything is written that the model exists and can be loaded: all its parts are here, whole and of the right shape.
    `trained`: a LoRA is going to be.

    A model that would have to be downloaded is downloaded when a person at a terminal agrees. Raises `ModelError`.
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
    """What would have to be downloaded, where nothing of the model is on this machine: a plan needs only what the catalogue knows. 0 where
    the model is here, as `require_model` sees. Raises `ModelError`."""
    facts, source = locate_model(name)
    if get_download_state(facts, source) == "missing":
        check_trainable(name)
        return facts.download_gb
    require_model(name)
    return 0


def download_model(name: str) -> ModelCard:
    """Download what a model lacks, told beforehand on stderr. Raises `ModelError`."""
    facts, source = _locate_model(name)
    if get_download_state(facts, source) not in ("included", "downloaded"):
        typer.echo(describe_download(facts, source), err=True)
        download_missing_parts(facts, source)
    return _build_card(facts, source)


def _locate_model(name: str) -> tuple[ModelRecord, str]:
    """Also what is no model to edit with, but to be compared with."""
    return find_vace(name) or locate_model(name)


def is_interactive() -> bool:
    """Is there a person to ask?"""
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
    here = get_download_state(facts, source)
    if here == "included":
        return here
    if here == "downloaded":
        return f"in {find_weights(facts, source)}"
    if here == "partial":
        begun = (
            f"{count_downloaded_bytes(source) / 1e9:.1f} of about {facts.download_gb:g} GB" if is_repository(source) else "parts missing"
        )
        return f"partly here, {begun}"
    return f"not here, about {facts.download_gb:g} GB"


def _describe_inputs(facts: ModelRecord) -> str:
    given = ["edited first frame", *(["edited last frame"] if facts.last_frame else []), *(["prompt"] if facts.reads_prompts else [])]
    return ", ".join(given)


def format_frame_size(geometry: Geometry) -> str:
    """`WIDTHxHEIGHT` of whole tokens with the model's area, as near to 16:9 as that allows."""
    units = geometry.native_area // geometry.token_size**2
    rows = min((n for n in range(1, units + 1) if units % n == 0), key=lambda n: abs(units / n**2 - 16 / 9))
    return f"{units // rows * geometry.token_size}x{rows * geometry.token_size}"
