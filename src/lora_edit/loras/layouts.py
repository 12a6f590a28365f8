"""Key layouts of LoRA files by other programs: prefix, layer name, and role of each tensor. Keys only, no tensors.

The libraries' own conversion does not cover these layouts. Result of loading the files of `tests/loras` with diffusers 0.42.1
(`WanLoraLoaderMixin.lora_state_dict` and `load_lora_weights`, which call `loaders/lora_conversion_utils.py`), against merged weights:

| layout | result |
|---|---|
| diffusers, comfyui, down-up | equal; of full differences, `diff_m` and those of norms are dropped without a warning |
| musubi | equal if every block has every layer and alpha; otherwise `KeyError` |
| kohya | `KeyError` |
| peft | no error, and no layer is loaded |
| bare; prefixes `pipe.dit.`, `model.diffusion_model.`, `lycoris_` | `ValueError` with alphas; without, no error, and no layer is loaded |
| HunyuanVideo in comfyui | alpha is ignored; `linear1` is split for a width of 3072 only; lora_down and lora_up are not converted |

Files with values that are not finite load without an error, and half a pair is an `IndexError`. The converters load the tensors, so that a
file cannot be checked from its header. They fold alpha into the pairs, which rounds them in half precision. PEFT 0.21.2
(`set_peft_model_state_dict`) loads its own layout only, into an adapter whose layers and rank the caller knows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_ADAPTER_SUFFIX = r"(?:(?:\.\w+)?\.weight)?$"
PARTS = {
    "down": re.compile(r"[._](?:lora_A|lora_down|lora\.down|lora_linear_layer\.down)" + _ADAPTER_SUFFIX),
    "up": re.compile(r"[._](?:lora_B|lora_up|lora\.up|lora_linear_layer\.up)" + _ADAPTER_SUFFIX),
    "up_bias": re.compile(r"[._](?:lora_B|lora_up)(?:\.\w+)?\.bias$"),
    "alpha": re.compile(r"\.alpha$"),
    "diff": re.compile(r"\.diff$"),
    "diff_bias": re.compile(r"\.diff_b$"),
    "diff_modulation": re.compile(r"\.diff_m$"),
}
"""Part of a delta -> suffix of its key, in PEFT, kohya, older diffusers, and distillations with full differences."""

UNSUPPORTED_ADAPTERS = {
    "DoRA": re.compile(r"\.(dora_scale|lora_magnitude_vector)"),
    "LoKr": re.compile(r"\.lokr_"),
    "LoHa": re.compile(r"\.hada_"),
    "LoCon (with a middle matrix)": re.compile(r"\.lora_mid"),
    "OFT": re.compile(r"\.(b?oft_|oft_blocks)"),
}
"""Kind of an adapter that is not a pair of matrices -> pattern of its keys."""

_PREFIX = re.compile(
    r"base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|transformer\.|pipe\.dit\.|lora_unet_+|lora_transformer_|lycoris_"
)

LAYOUTS = {
    "diffusers": "diffusers: transformer.*.lora_A",
    "peft": "PEFT: base_model.model.*.lora_A",
    "comfyui": "ComfyUI, diffusion-pipe: diffusion_model.*.lora_A",
    "down-up": "lightx2v, Kijai: diffusion_model.*.lora_down, with full differences",
    "musubi": "musubi-tuner: lora_unet_* with underscores",
    "kohya": "kohya, LyCORIS, VideoX-Fun: other prefixes with underscores",
    "bare": "DiffSynth and save_lora_adapter: names without a prefix",
}
"""Layouts that can be read: short name -> description."""


@dataclass(frozen=True)
class LoraKey:
    """A parsed tensor key: `layer` is the file's name of the layer, `part` one of `PARTS`."""

    prefix: str
    layer: str
    part: str


def parse_key(key: str) -> LoraKey | None:
    """Parse a key; None when it is not part of a LoRA."""
    for part, suffix in PARTS.items():
        match = suffix.search(key)
        if match:
            prefix, layer = split_prefix(key[: match.start()])
            if part == "diff_modulation":
                return LoraKey(prefix, f"{layer}.modulation", "diff")
            return LoraKey(prefix, layer, part)
    return None


def split_prefix(name: str) -> tuple[str, str]:
    """Split a name into the layout's prefix and the layer's name."""
    layer = name
    while match := _PREFIX.match(layer):
        layer = layer[match.end() :]
    return name[: len(name) - len(layer)], layer


def detect_layout(keys: Iterable[str]) -> str:
    """Detect the layout of most of a file's pairs, by short name."""
    pairs = [(key, parsed) for key in keys if (parsed := parse_key(key)) and parsed.part in ("down", "up")]
    return Counter(_detect_key_layout(key, parsed) for key, parsed in pairs).most_common(1)[0][0]


def _detect_key_layout(key: str, parsed: LoraKey) -> str:
    if "." not in parsed.layer and "_" in parsed.layer:
        return "musubi" if parsed.prefix == "lora_unet_" and re.search(r"(self|cross)_attn|_ffn_\d$|_blocks_", parsed.layer) else "kohya"
    if parsed.prefix.startswith("base_model.model."):
        return "peft"
    if parsed.prefix in ("", "pipe.dit."):
        return "bare"
    if re.search(r"lora_(down|up)", key):
        return "down-up"
    return "diffusers" if parsed.prefix == "transformer." else "comfyui"


def detect_unsupported_adapter(keys: Iterable[str]) -> str | None:
    """Detect an adapter kind that is not a plain LoRA; None without one."""
    for key in keys:
        for kind, pattern in UNSUPPORTED_ADAPTERS.items():
            if pattern.search(key):
                return kind
    return None


_WAN_WIDTHS = {1536: "Wan 1.3B", 3072: "Wan 2.2 5B", 5120: "Wan 14B"}
_BASE_MODEL_KEYS = ("base_model", "modelspec.architecture", "ss_base_model_version", "ss_sd_model_name")


def infer_base_model(shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> str:
    """Infer the model that a file is for, from its metadata, else from its layers' names and widths."""
    for name in _BASE_MODEL_KEYS:
        if metadata.get(name):
            return metadata[name]
    layers = {parsed.layer.replace(".", "_"): shapes[key] for key in shapes if (parsed := parse_key(key)) and parsed.part == "down"}
    text = "\n".join(layers)
    if re.search(r"^blocks_\d+_(self_attn|cross_attn|attn1|attn2|ffn)_", text, re.MULTILINE):
        widths = [shape[1] for name, shape in layers.items() if re.search(r"attn", name) and len(shape) > 1]
        name = _WAN_WIDTHS.get(widths[0], f"a Wan model of width {widths[0]}") if widths else "a Wan model"
        return f"{name}, image-to-video" if re.search(r"k_img|add_k_proj", text) else name
    patterns = {
        r"(double|single)_blocks_\d+|transformer_blocks_\d+_attn_add_q_proj|single_transformer_blocks": "HunyuanVideo or FLUX",
        r"^transformer_blocks_\d+_attn1_": "LTX-2, LTX-Video or CogVideoX",
        r"down_blocks_\d+|input_blocks_\d+|up_blocks_\d+|text_model_encoder": "Stable Diffusion or SDXL",
        r"layers_\d+_self_attn_q_proj": "a language model",
    }
    return next((name for pattern, name in patterns.items() if re.search(pattern, text, re.MULTILINE)), "an unknown model")


def format_layer_pattern(layer: str) -> str:
    """Replace block numbers by `*`: `blocks.3.attn1.to_q` becomes `blocks.*.attn1.to_q`."""
    return re.sub(r"(?<=[._])\d+(?=[._]|$)", "*", layer)
