"""What a LoRA file says about itself, read from its header alone."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from lora_edit.loras.header import read_header
from lora_edit.loras.layouts import LAYOUTS, format_layer_pattern, parse_key


@dataclass(frozen=True)
class LoraFacts:
    """`tensors` counts all; `ranks` and `dtypes` are those that occur; `targets` are layers' names with `*` for numbers."""

    file: str
    layout: str
    made_for: str
    tensors: int
    parameters: int
    layers: int
    ranks: list[int]
    dtypes: list[str]
    targets: list[str]
    metadata: dict[str, str]

    def to_json(self) -> dict[str, object]:
        """The facts as a record."""
        return asdict(self)


def describe_lora(path: Path) -> LoraFacts:
    """Read the file's header. Raises `ModelError` when it is missing, a pickle, damaged, or no LoRA."""
    header = read_header(path)
    down = {parsed.layer: shape for key, shape in header.shapes.items() if (parsed := parse_key(key)) and parsed.part == "down"}
    return LoraFacts(
        file=str(path),
        layout=LAYOUTS[header.layout],
        made_for=header.base_model,
        tensors=len(header.shapes),
        parameters=sum(math.prod(shape) for shape in header.shapes.values()),
        layers=len(down),
        ranks=sorted({shape[0] for shape in down.values() if shape}),
        dtypes=list(header.dtypes),
        targets=sorted({format_layer_pattern(layer) for layer in down}),
        metadata=header.metadata,
    )
