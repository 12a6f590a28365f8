"""The models of this version, for people: the catalogue's records, and what of them lies on this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lora_edit.models.catalog.facts import Geometry, ModelFacts
from lora_edit.models.catalog.locate import all_models, locate, weights_at


@dataclass(frozen=True)
class ModelCard:
    """What a person needs to know to choose a model.

    `frames` is the longest window it takes at once (longer clips are made window by window) and `size` a frame of the area it works
    best at. `download_gb` is approximate; `repo` is empty for the embedded model.
    """

    name: str
    license: str
    frames: int
    size: str
    memory: str
    weights: str
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
    return [_card(*locate(name))]


def require_model(name: str) -> None:
    """Raise `ModelError` before anything is written when the model does not exist."""
    locate(name)


def _card(facts: ModelFacts, source: str) -> ModelCard:
    return ModelCard(
        name=facts.name,
        license=facts.license,
        frames=facts.geometry.max_frames,
        size=frame_size(facts.geometry),
        memory=facts.memory,
        weights=_weights(facts, source),
        summary=facts.summary,
        needs=_needs(facts),
        repo=facts.repo,
        download_gb=facts.download_gb,
    )


def _weights(facts: ModelFacts, source: str) -> str:
    if facts.layout == "included":
        return "included"
    folder = weights_at(facts, source)
    if folder is not None:
        return f"in {folder}"
    return f"not here; about {facts.download_gb:g} GB" + (", to be converted" if facts.layout == "original" else "")


def _needs(facts: ModelFacts) -> str:
    given = ["edited first frame", *(["edited last frame"] if facts.last_frame else []), *(["prompt"] if facts.reads_prompts else [])]
    return ", ".join(given)


def frame_size(geometry: Geometry) -> str:
    """`WIDTHxHEIGHT` of whole tokens with the model's area, as near to 16:9 as that allows."""
    units = geometry.area // geometry.token**2
    rows = min((n for n in range(1, units + 1) if units % n == 0), key=lambda n: abs(units / n**2 - 16 / 9))
    return f"{units // rows * geometry.token}x{rows * geometry.token}"
