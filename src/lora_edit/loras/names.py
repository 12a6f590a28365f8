"""Layer names in diffusers, in the original checkpoints (Wan, HunyuanVideo, LTX), and with underscores for dots."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from lora_edit.models.families.ltx2 import key_names as ltx_names
from lora_edit.models.families.wan.key_names import BLOCK_LAYERS, OUTER_LAYERS


@dataclass(frozen=True)
class BlockNaming:
    """Naming of one kind of block: its prefix in diffusers and in the original (`{}` is the block's number), and its layers' names in both.

    Several diffusers names for one original layer mean that the original stores them in one matrix, with rows in this order.
    """

    diffusers_prefix: str
    original_prefix: str
    layers: dict[tuple[str, ...], str]


BLOCK_NAMINGS = (
    BlockNaming("blocks.{}.", "blocks.{}.", {(name,): BLOCK_LAYERS[name] for name in BLOCK_LAYERS}),
    BlockNaming("", "", {(name,): OUTER_LAYERS[name] for name in OUTER_LAYERS}),
    # diffusers `loaders/lora_conversion_utils.py: _convert_hunyuan_video_lora_to_diffusers`
    BlockNaming(
        "transformer_blocks.{}.",
        "double_blocks.{}.",
        {
            ("attn.to_q", "attn.to_k", "attn.to_v"): "img_attn_qkv",
            ("attn.to_out.0",): "img_attn_proj",
            ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"): "txt_attn_qkv",
            ("attn.to_add_out",): "txt_attn_proj",
            ("ff.net.0.proj",): "img_mlp.fc1",
            ("ff.net.2",): "img_mlp.fc2",
            ("ff_context.net.0.proj",): "txt_mlp.fc1",
            ("ff_context.net.2",): "txt_mlp.fc2",
            ("norm1.linear",): "img_mod.linear",
            ("norm1_context.linear",): "txt_mod.linear",
        },
    ),
    BlockNaming(
        "single_transformer_blocks.{}.",
        "single_blocks.{}.",
        {
            ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"): "linear1",
            ("proj_out",): "linear2",
            ("norm.linear",): "modulation.linear",
        },
    ),
)


@cache
def build_ltx_namings() -> tuple[BlockNaming, ...]:
    """Build the namings of LTX, whose blocks have HunyuanVideo's prefix in diffusers, and other names in the original."""
    return (
        BlockNaming("transformer_blocks.{}.", "transformer_blocks.{}.", {(name,): name for name in ltx_names.BLOCK_LAYERS}),
        BlockNaming("", "", {(name,): original for name, original in ltx_names.OUTER_LAYERS.items()}),
    )


def select_namings(names: Iterable[str]) -> tuple[BlockNaming, ...]:
    """Select the namings of the model that has all these layers: LTX's blocks alone have a layer `attn1`."""
    is_ltx = any(re.match(r"transformer_blocks\.\d+\.attn1\.", name) for name in names)
    return build_ltx_namings() if is_ltx else BLOCK_NAMINGS


def flatten_name(name: str) -> str:
    """Replace dots by underscores, which makes all spellings of a layer equal."""
    return name.replace(".", "_")


def to_original(name: str, namings: tuple[BlockNaming, ...] = BLOCK_NAMINGS) -> tuple[str, tuple[str, ...]] | None:
    """Map a diffusers layer name to the original layer and all diffusers layers in it; None without an original name."""
    for naming in namings:
        number, suffix = _split_block_name(naming.diffusers_prefix, name)
        for parts, original in naming.layers.items():
            if suffix in parts:
                prefix = naming.diffusers_prefix.format(number)
                return naming.original_prefix.format(number) + original, tuple(prefix + part for part in parts)
    return None


def to_diffusers(original: str, namings: tuple[BlockNaming, ...] = BLOCK_NAMINGS) -> tuple[str, ...] | None:
    """Map an original layer name to the diffusers layers in it; None for other names."""
    for naming in namings:
        number, suffix = _split_block_name(naming.original_prefix, original)
        for parts, name in naming.layers.items():
            if suffix == name:
                return tuple(naming.diffusers_prefix.format(number) + part for part in parts)
    return None


def _split_block_name(template: str, name: str) -> tuple[str, str]:
    """Split a name into block number and suffix; the suffix is empty when the name is not in such a block."""
    head = template.partition("{}")[0]
    if not head:
        return "", name
    number, _, suffix = name.removeprefix(head).partition(".")
    return (number, suffix) if name.startswith(head) and number.isdecimal() else ("", "")


def index_flat_names(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Map every flat name, in diffusers' or original naming, to the diffusers layers that it refers to."""
    known_names = set(names)
    namings = select_namings(known_names)
    index: dict[str, tuple[str, ...]] = {flatten_name(name): (name,) for name in known_names}
    for name in known_names:
        original = to_original(name, namings)
        if original and known_names.issuperset(original[1]):
            # A name in both namings refers to diffusers' layer.
            index.setdefault(flatten_name(original[0]), original[1])
    return index
