"""Description of a LoRA file, read from its header alone."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from lora_edit.loras.header import read_header
from lora_edit.loras.layouts import LAYOUTS, format_layer_pattern, parse_key


@dataclass(frozen=True)
class LoraFacts:
    """Facts of a LoRA file: number of `tensors`, all `ranks` and `dtypes`, and `targets`: layer names with `*` for numbers."""

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
        """Convert the facts to a JSON record."""
        return asdict(self)


def describe_lora(path: Path) -> LoraFacts:
    """Read the header of the file. Raises `ModelError` if it is missing, a pickle, damaged or not a LoRA."""
    header = read_header(path)
    down_shapes = {parsed.layer: shape for key, shape in header.shapes.items() if (parsed := parse_key(key)) and parsed.part == "down"}
    return LoraFacts(
        file=str(path),
        layout=LAYOUTS[header.layout],
        made_for=header.base_model,
        tensors=len(header.shapes),
        parameters=sum(math.prod(shape) for shape in header.shapes.values()),
        layers=len(down_shapes),
        ranks=sorted({shape[0] for shape in down_shapes.values() if shape}),
        dtypes=list(header.dtypes),
        targets=sorted({format_layer_pattern(layer) for layer in down_shapes}),
        metadata=header.metadata,
    )
