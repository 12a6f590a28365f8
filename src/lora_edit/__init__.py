"""First-frame-guided video editing by mask-aware LoRA fine-tuning.

Importing this package loads no model, opens no file and initializes no device: public names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_edit.api import build_settings as build_settings
    from lora_edit.api import edit as edit
    from lora_edit.api import evaluate as evaluate
    from lora_edit.api import generate as generate
    from lora_edit.api import preview as preview
    from lora_edit.api import train as train
    from lora_edit.api import verify as verify
    from lora_edit.config import EditSettings as EditSettings
    from lora_edit.errors import InputError as InputError
    from lora_edit.errors import LoraEditError as LoraEditError
    from lora_edit.errors import MaskError as MaskError
    from lora_edit.errors import ModelError as ModelError
    from lora_edit.errors import NonFiniteError as NonFiniteError
    from lora_edit.errors import RegionError as RegionError
    from lora_edit.errors import RunError as RunError
    from lora_edit.errors import SettingsError as SettingsError
    from lora_edit.errors import SigningError as SigningError
    from lora_edit.errors import TrainingDivergedError as TrainingDivergedError
    from lora_edit.errors import VideoError as VideoError
    from lora_edit.pipeline import Result as Result
    from lora_edit.provenance.verification import VerificationReport as VerificationReport
    from lora_edit.reporting import Reporter as Reporter
    from lora_edit.resolved import ResolvedEdit as ResolvedEdit
    from lora_edit.run import Run as Run
    from lora_edit.session import Session as Session

__version__ = "0.1.0"

__all__ = [
    "EditSettings",
    "InputError",
    "LoraEditError",
    "MaskError",
    "ModelError",
    "NonFiniteError",
    "RegionError",
    "Reporter",
    "ResolvedEdit",
    "Result",
    "Run",
    "RunError",
    "Session",
    "SettingsError",
    "SigningError",
    "TrainingDivergedError",
    "VerificationReport",
    "VideoError",
    "build_settings",
    "edit",
    "evaluate",
    "generate",
    "preview",
    "train",
    "verify",
]

_MODULES = {
    "api": ("build_settings", "edit", "evaluate", "generate", "preview", "train", "verify"),
    "config": ("EditSettings",),
    "errors": (
        "InputError", "LoraEditError", "MaskError", "ModelError", "NonFiniteError", "RegionError", "RunError", "SettingsError",
        "SigningError", "TrainingDivergedError", "VideoError",
    ),
    "pipeline": ("Result",),
    "provenance.verification": ("VerificationReport",),
    "reporting": ("Reporter",),
    "resolved": ("ResolvedEdit",),
    "run": ("Run",),
    "session": ("Session",),
}  # fmt: skip
"""Public names by the module that defines them."""


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"lora_edit.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
