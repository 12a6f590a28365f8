"""Reading and validation of a LoRA file's header, without loading tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lora_edit.errors import ModelError
from lora_edit.loras.layouts import detect_layout, detect_unsupported_adapter, infer_base_model, parse_key
from lora_edit.models.checkpoints.headers import is_pickle


@dataclass(frozen=True)
class LoraHeader:
    """Header of a LoRA file: `shapes` by key, its `dtypes` (safetensors' names), its `metadata`, and its layout's short name."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: tuple[str, ...]
    metadata: dict[str, str]
    layout: str

    @property
    def base_model(self) -> str:
        """The model that the file seems to be for."""
        return infer_base_model(self.shapes, self.metadata)


def read_header(path: Path) -> LoraHeader:
    """Read and check a header. Raises `ModelError` when the file is missing, a pickle, damaged, not a LoRA, or of an unsupported kind."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"{path}: no such file; give a LoRA as a .safetensors file")
    reject_pickle(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            dtypes = tuple(sorted({str(part.get_dtype()) for part in slices.values()}))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}); download or export it again") from error
    kind = detect_unsupported_adapter(shapes)
    if kind:
        raise ModelError(f"{path}: is a {kind} adapter, which is not a plain LoRA; convert it to lora_A/lora_B pairs and give that file")
    parts = {parsed.part for key in shapes if (parsed := parse_key(key))}
    if not {"down", "up"} <= parts:
        raise ModelError(f"{path}: holds {len(shapes)} tensors but no LoRA pairs (lora_A/lora_B or lora_down/lora_up); give a LoRA file")
    return LoraHeader(path, shapes, dtypes, metadata, detect_layout(shapes))


def reject_pickle(path: Path) -> None:
    """Raise `ModelError` for files that can run code when opened, by their name or first bytes."""
    if is_pickle(path):
        raise ModelError(f"{path}: is a pickle, which can run code when opened; give the LoRA as a .safetensors file")
