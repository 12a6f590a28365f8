"""The models of this version, for people; a test holds the list against the registry of families."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from lora_edit.errors import ModelError


@dataclass(frozen=True)
class ModelCard:
    """What a person needs to know to choose a model.

    `frames` is the longest window it takes at once (longer clips are made window by window) and `size` a frame of the area it works
    best at.
    """

    name: str
    license: str
    frames: int
    size: str
    memory: str
    weights: str
    summary: str

    def to_json(self) -> dict[str, object]:
        """The card as a record."""
        return asdict(self)


MODELS = (
    ModelCard(
        name="tiny",
        license="Apache-2.0",
        frames=17,
        size="88x88",
        memory="1 GB, CPU",
        weights="included",
        summary="embedded; trained from scratch on rendered clips; low resolution; ignores prompts",
    ),
)


def find_models(name: str | None) -> Iterable[ModelCard]:
    """Every model, or the named one. Raises `ModelError` for an unknown name."""
    if name is None:
        return MODELS
    require_model(name)
    return [card for card in MODELS if card.name == name]


def require_model(name: str) -> None:
    """Raise `ModelError` before anything is written when the model does not exist."""
    names = [card.name for card in MODELS]
    if name not in names:
        raise ModelError(f"model {name!r} is unknown; this version has {', '.join(names)} (see `lora-edit models`)")
