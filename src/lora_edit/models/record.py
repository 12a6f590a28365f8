"""What is known about a model before any of its files is opened: one frozen record per model. Light: no torch, no diffusers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Preset = dict[str, dict[str, Any]]
"""Settings tables by room, as in a settings file."""

CONFIG_FOLDER = Path(__file__).parent / "configs"
NONE_WHEN_ABSENT = ("image_dim", "added_kv_proj_dim", "pos_embed_seq_len", "image_condition_type")


@dataclass(frozen=True)
class Geometry:
    """The model's grid: `cell` pixels per latent cell, `group` frames per later latent frame, `token` pixels per token side,
    `max_frames` (`group * k + 1`) it was trained for, and `area`, the pixels of a frame it works best at."""

    spatial_compression: int
    temporal_compression: int
    token_size: int
    max_frames: int
    native_area: int


@dataclass(frozen=True)
class ModelFacts:
    """One known model.

    `loader` is `module:function`, called as `function(facts, source, device, dtype)` to get a `Family`; `preset` says what differs from
    the settings' defaults. `repo` is the Hub repository and `layout` how it stores weights; `download_gb` is approximate. `config` names
    the JSON file with the transformer's configuration, in `configs/` or anywhere (absolute path), that a checkpoint has to match. `parts`
    are the subfolders that hold transformers: one, or the high-noise and the low-noise expert that meet at time `boundary`. `last_frame`:
    the model is shown the last frame beside the first. `spatial_mask`: it can be told which part of a frame is given; without, only the
    first frame is given, and the paper's naive LoRA is all it can do. `short_window` is how many frames training may see at a time when
    memory is short (paper, appendix C). `encoders_gb` is what text encoder, image encoder and autoencoder take of main memory.
    `other_parts` are further subfolders that it needs, beside autoencoder, text encoder, tokenizer and image encoder. `companions` names
    the configurations of these, for models whose single files are read too, and `companions_repo` a Hub repository that has them where
    `repo` has not. `upstream` is where these facts come from.
    """

    name: str
    summary: str
    license: str
    geometry: Geometry
    loader: str
    preset: Callable[[], Preset]
    memory: str
    repo: str = ""
    layout: Literal["included", "diffusers", "original"] = "included"
    download_gb: float = 0.0
    config: str = ""
    transformer_parts: tuple[str, ...] = ("transformer",)
    text_length: int = 0
    image_encoder: bool = False
    last_frame: bool = False
    spatial_mask: bool = True
    boundary_ratio: float | None = None
    short_window: int = 9
    encoders_gb: float = 0.0
    other_parts: tuple[str, ...] = ()
    companions_config: str = ""
    companions_repo: str = ""
    upstream: str = ""

    @property
    def reads_prompts(self) -> bool:
        """Has it a text encoder? Others ignore prompts, and nothing writes any for them."""
        return self.text_length > 0

    def read_transformer_config(self) -> dict[str, Any]:
        """The transformer's configuration as this project ships it; empty when there is none to hold a checkpoint against."""
        return _read_config_file(self.config)

    def read_companion_configs(self) -> dict[str, dict[str, Any]]:
        """The configurations of autoencoder and encoders, by part; empty when single files of this model are not read."""
        return _read_config_file(self.companions_config)


def _read_config_file(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CONFIG_FOLDER / name).read_text("utf-8")) if name else {}
    return found


def find_differences(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Where a checkpoint's configuration departs from the wanted one, as `key found (wanted)`.

    A key that the checkpoint leaves out stands for the class's default, which is None for image parts and as wanted otherwise.
    """
    out = []
    for key, value in expected.items():
        own = actual.get(key, None if key in NONE_WHEN_ABSENT else value)
        own = list(own) if isinstance(own, tuple) else own
        if own != value:
            out.append(f"{key} {own} instead of {value}")
    return out
