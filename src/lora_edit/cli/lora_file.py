"""What a LoRA file says about itself, read from its header alone."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from lora_edit.errors import ModelError

_DOWN = re.compile(r"\.?(lora_A|lora_down|lora\.down)(\.\w+)?\.weight$")
_UP = re.compile(r"\.?(lora_B|lora_up|lora\.up)(\.\w+)?\.weight$")
_PREFIXES = ("transformer.", "diffusion_model.", "base_model.model.", "lora_unet_")


@dataclass(frozen=True)
class LoraFacts:
    """`tensors` counts all; `ranks` and `dtypes` are those that occur; `targets` are layers' names with `*` for numbers."""

    file: str
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
    """Read the file's header. Raises `ModelError` when it is missing, damaged, or no LoRA."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"{path}: no such file; give a LoRA as a .safetensors file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            dtypes = sorted({str(part.get_dtype()) for part in slices.values()})
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}); download or export it again") from error
    down = {name: shape for name, shape in shapes.items() if _DOWN.search(name) and len(shape) >= 2}
    if not down or not any(_UP.search(name) for name in shapes):
        raise ModelError(f"{path}: holds {len(shapes)} tensors but no LoRA pairs (lora_A/lora_B or lora_down/lora_up); give a LoRA file")
    return LoraFacts(
        file=str(path),
        tensors=len(shapes),
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        layers=len(down),
        ranks=sorted({shape[0] for shape in down.values()}),
        dtypes=dtypes,
        targets=sorted({layer_pattern(name) for name in down}),
        metadata=metadata,
    )


def layer_pattern(name: str) -> str:
    """`transformer.blocks.3.attn1.to_q.lora_A.weight` as `blocks.*.attn1.to_q`."""
    layer = _DOWN.sub("", name)
    for prefix in _PREFIXES:
        layer = layer.removeprefix(prefix)
    return re.sub(r"(?<=[._])\d+(?=[._]|$)", "*", layer)
