"""Model records: what is known of a model before any of its files is opened. Imports neither torch nor diffusers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

Preset = dict[str, dict[str, Any]]
"""Settings tables by section, as in a settings file."""

AREA_480, AREA_540, AREA_720 = 480 * 832, 544 * 960, 720 * 1280
"""Pixels of a frame at 480, 540 and 720 lines."""

MEMORY_480, MEMORY_720 = "about 60 GB GPU, 64 GB RAM", "about 90 GB GPU, 64 GB RAM"
"""Estimates for models of 13 or 14 billion parameters at 480 and 720 lines, for the most frames at the model's own area: bfloat16 weights,
one hidden state per block, and the working memory of one block that is computed again."""

CONFIG_FOLDER = Path(__file__).parent / "configs"
NONE_WHEN_ABSENT = ("image_dim", "added_kv_proj_dim", "pos_embed_seq_len", "image_condition_type")
"""Keys of a transformer's configuration whose default is None."""


@dataclass(frozen=True)
class Geometry:
    """The model's grid.

    - `spatial_compression`: pixels per side of a latent cell.
    - `temporal_compression`: frames per latent frame behind the first.
    - `token_size`: pixels per side of a token.
    - `max_frames`: clip length in training, `temporal_compression * k + 1`.
    - `native_area`: pixels of a frame at which the model works best.
    """

    spatial_compression: int
    temporal_compression: int
    token_size: int
    max_frames: int
    native_area: int


@dataclass(frozen=True)
class ModelRecord:
    """One known model.

    - `loader`: `module:function`, called as `function(record, source, device, dtype)`; returns a `Family`.
    - `preset`: differences from the settings' defaults.
    - `repo`, `layout`: the Hub repository and how it stores weights; `download_gb` is approximate.
    - `config`: JSON file with the transformer's configuration, in `configs/` or an absolute path. A checkpoint has to match it.
    - `transformer_parts`: subfolders with transformers: one, or the high-noise and the low-noise expert, which meet at `boundary_ratio`.
    - `text_length`: tokens of a prompt; 0 for a model without text encoder.
    - `last_frame`: the model takes the last frame beside the first.
    - `spatial_mask`: the model takes a mask of the given parts of a frame. Without it only the first frame can be given, which allows the
      paper's naive LoRA only.
    - `short_window`: frames per training window when memory is short (paper, appendix C).
    - `encoders_gb`: main memory of text encoder, image encoder and autoencoder; `largest_encoder_gb`: weights of the largest encoder in the
      transformer's number format, which are on the device at once.
    - `other_parts`: required subfolders beside autoencoder, text encoder, tokenizer and image encoder.
    - `companions_config`: JSON file with the configurations of those, for models whose single files are read too.
    - `companions_repo`: Hub repository with those, where `repo` lacks them.
    - `meta_sample`: `module:function`, called as `function(record, latent_shape, dtype)`; returns an `EncodedSample` on the meta device.
      A record with this hook promises that its `loader` builds the family on `torch.device("meta")` without reading a file, so that costs
      are counted before weights are read. Without it, a step is measured.
    - `meta_autoencoder`: name of the autoencoder in `configs/autoencoders.json`, by which its memory is estimated.
    - `upstream`: sources of these values.
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
    largest_encoder_gb: float = 0.0
    other_parts: tuple[str, ...] = ()
    companions_config: str = ""
    companions_repo: str = ""
    meta_sample: str = ""
    meta_autoencoder: str = ""
    upstream: str = ""

    @property
    def reads_prompts(self) -> bool:
        """Whether the model has a text encoder. Others ignore prompts, and no captions are made for them."""
        return self.text_length > 0

    def read_transformer_config(self) -> dict[str, Any]:
        """Read the transformer's configuration that this package ships; empty without one to compare a checkpoint with."""
        return read_config_file(self.config)

    def read_companion_configs(self) -> dict[str, dict[str, Any]]:
        """Read the configurations of autoencoder and encoders, by part; empty for models whose single files are not read."""
        return read_config_file(self.companions_config)


def import_target(target: str) -> Any:
    """Import `module:name`. Raises `ImportError` or `AttributeError`."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def read_negative_prompt(publisher: str) -> str:
    """Read the negative prompt that a publisher's own pipelines use."""
    prompt: str = read_config_file("negative-prompts.json")[publisher]
    return prompt


def read_config_file(name: str) -> dict[str, Any]:
    """Read a JSON file of `configs/`, or one with an absolute path; empty without a name."""
    config: dict[str, Any] = json.loads((CONFIG_FOLDER / name).read_text("utf-8")) if name else {}
    return config


def find_differences(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """List the differences of a checkpoint's configuration from the expected one, as `key VALUE instead of EXPECTED`.

    A key that the checkpoint leaves out stands for the class's default: None for `NONE_WHEN_ABSENT`, otherwise the expected value.
    """
    differences = []
    for key, value in expected.items():
        own = actual.get(key, None if key in NONE_WHEN_ABSENT else value)
        own = list(own) if isinstance(own, tuple) else own
        if own != value:
            differences.append(f"{key} {own} instead of {value}")
    return differences
