"""How programs write a LoRA down: the key's prefix, the layer's name, and which part of the change a tensor is. Text only, no tensors."""

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
"""Part of a change, and how the key of its tensor ends: PEFT, kohya, older diffusers, and the full differences of distillations."""

UNSUPPORTED_ADAPTERS = {
    "DoRA": re.compile(r"\.(dora_scale|lora_magnitude_vector)"),
    "LoKr": re.compile(r"\.lokr_"),
    "LoHa": re.compile(r"\.hada_"),
    "LoCon (with a middle matrix)": re.compile(r"\.lora_mid"),
    "OFT": re.compile(r"\.(b?oft_|oft_blocks)"),
}
"""Adapters that are more than a pair of matrices."""

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
"""The layouts that are read, by short name."""


@dataclass(frozen=True)
class LoraKey:
    """A tensor's key taken apart; `layer` is as the file spells it, `part` one of `PARTS`."""

    prefix: str
    layer: str
    part: str


def parse_key(key: str) -> LoraKey | None:
    """Take a key apart; None when it is no part of a LoRA."""
    for part, ending in PARTS.items():
        found = ending.search(key)
        if found:
            prefix, layer = split_prefix(key[: found.start()])
            if part == "diff_modulation":
                return LoraKey(prefix, f"{layer}.modulation", "diff")
            return LoraKey(prefix, layer, part)
    return None


def split_prefix(name: str) -> tuple[str, str]:
    """What stands before the layer's own name, and that name."""
    layer = name
    while found := _PREFIX.match(layer):
        layer = layer[found.end() :]
    return name[: len(name) - len(layer)], layer


def detect_layout(keys: Iterable[str]) -> str:
    """The layout, by short name, in which most of a file's pairs are written."""
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
    """The name of an adapter kind that is not a plain LoRA, if the keys show one."""
    for key in keys:
        for kind, sign in UNSUPPORTED_ADAPTERS.items():
            if sign.search(key):
                return kind
    return None


_WAN_WIDTHS = {1536: "Wan 1.3B", 3072: "Wan 2.2 5B", 5120: "Wan 14B"}
_BASE_MODEL_KEYS = ("base_model", "modelspec.architecture", "ss_base_model_version", "ss_sd_model_name")


def infer_base_model(shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> str:
    """Which model a file seems to be for: what it states, else what its layers' names and widths tell."""
    for name in _BASE_MODEL_KEYS:
        if metadata.get(name):
            return metadata[name]
    layers = {parsed.layer.replace(".", "_"): shapes[key] for key in shapes if (parsed := parse_key(key)) and parsed.part == "down"}
    text = "\n".join(layers)
    if re.search(r"^blocks_\d+_(self_attn|cross_attn|attn1|attn2|ffn)_", text, re.MULTILINE):
        widths = [shape[1] for name, shape in layers.items() if re.search(r"attn", name) and len(shape) > 1]
        name = _WAN_WIDTHS.get(widths[0], f"a Wan model of width {widths[0]}") if widths else "a Wan model"
        return f"{name}, image-to-video" if re.search(r"k_img|add_k_proj", text) else name
    signs = {
        r"(double|single)_blocks_\d+|transformer_blocks_\d+_attn_add_q_proj|single_transformer_blocks": "HunyuanVideo or FLUX",
        r"^transformer_blocks_\d+_attn1_": "LTX-Video or CogVideoX",
        r"down_blocks_\d+|input_blocks_\d+|up_blocks_\d+|text_model_encoder": "Stable Diffusion or SDXL",
        r"layers_\d+_self_attn_q_proj": "a language model",
    }
    return next((name for sign, name in signs.items() if re.search(sign, text, re.MULTILINE)), "a model that is not known here")


def format_layer_pattern(layer: str) -> str:
    """`blocks.3.attn1.to_q` as `blocks.*.attn1.to_q`: one line for all blocks."""
    return re.sub(r"(?<=[._])\d+(?=[._]|$)", "*", layer)
