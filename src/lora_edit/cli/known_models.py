"""The models of this version, for people: the catalogue's records, and what of them lies on this machine."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass

import typer

from lora_edit.errors import ModelError
from lora_edit.models.catalog.checks import refuse_training, survey
from lora_edit.models.catalog.download import fetch, plan, state, terms
from lora_edit.models.catalog.facts import Geometry, ModelFacts
from lora_edit.models.catalog.hub import downloaded_bytes, is_repository
from lora_edit.models.catalog.locate import all_models, locate, weights_at
from lora_edit.models.catalog.vace import called_vace


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
        return [_card(facts, facts.repo) for facts in all_models()]
    return [_card(*_located(name))]


def require_model(name: str, trained: bool = True) -> None:
    """See before anything is written that the model exists and can be loaded: all its parts are here, whole and of the right shape.
    `trained`: a LoRA is going to be.

    A model that would have to be downloaded is downloaded when a person at a terminal agrees. Raises `ModelError`.
    """
    facts, source = locate(name)
    if trained:
        refuse_training(name)
    if facts.layout == "included":
        return
    if state(facts, source) in ("missing", "partial") and interactive() and _can_download(facts, source):
        typer.echo(terms(facts, source), err=True)
        if typer.confirm("Download now?", err=True):
            fetch(facts, source)
    survey(facts, source)


def absent_gigabytes(name: str) -> float:
    """What would have to be downloaded, where nothing of the model is on this machine: a plan needs only what the catalogue knows. 0 where
    the model is here, as `require_model` sees. Raises `ModelError`."""
    facts, source = locate(name)
    if state(facts, source) == "missing":
        refuse_training(name)
        return facts.download_gb
    require_model(name)
    return 0


def download_model(name: str) -> ModelCard:
    """Download what a model lacks, told beforehand on stderr. Raises `ModelError`."""
    facts, source = _located(name)
    if state(facts, source) not in ("included", "downloaded"):
        typer.echo(terms(facts, source), err=True)
        fetch(facts, source)
    return _card(facts, source)


def _located(name: str) -> tuple[ModelFacts, str]:
    """Also what is no model to edit with, but to be compared with."""
    return called_vace(name) or locate(name)


def interactive() -> bool:
    """Is there a person to ask?"""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _can_download(facts: ModelFacts, source: str) -> bool:
    try:
        return bool(plan(facts, source))
    except ModelError:
        return False


def _card(facts: ModelFacts, source: str) -> ModelCard:
    return ModelCard(
        name=facts.name,
        license=facts.license,
        frames=facts.geometry.max_frames,
        size=frame_size(facts.geometry),
        memory=facts.memory,
        weights=_weights(facts, source),
        state=state(facts, source),
        summary=facts.summary,
        needs=_needs(facts),
        repo=facts.repo,
        download_gb=facts.download_gb,
    )


def _weights(facts: ModelFacts, source: str) -> str:
    here = state(facts, source)
    if here == "included":
        return here
    if here == "downloaded":
        return f"in {weights_at(facts, source)}"
    if here == "partial":
        begun = f"{downloaded_bytes(source) / 1e9:.1f} of about {facts.download_gb:g} GB" if is_repository(source) else "parts missing"
        return f"partly here, {begun}"
    return f"not here, about {facts.download_gb:g} GB"


def _needs(facts: ModelFacts) -> str:
    given = ["edited first frame", *(["edited last frame"] if facts.last_frame else []), *(["prompt"] if facts.reads_prompts else [])]
    return ", ".join(given)


def frame_size(geometry: Geometry) -> str:
    """`WIDTHxHEIGHT` of whole tokens with the model's area, as near to 16:9 as that allows."""
    units = geometry.area // geometry.token**2
    rows = min((n for n in range(1, units + 1) if units % n == 0), key=lambda n: abs(units / n**2 - 16 / 9))
    return f"{units // rows * geometry.token}x{rows * geometry.token}"
