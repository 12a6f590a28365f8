"""What a layer is called: in diffusers, in the original checkpoints (Wan, HunyuanVideo), and in files that write dots as underscores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lora_edit.models.families.wan.key_names import BLOCK_LAYERS, OUTER_LAYERS


@dataclass(frozen=True)
class BlockNaming:
    """One kind of place: its prefix in diffusers and in the original (`{}` is the block's number), and its layers' names in both.

    Several names of diffusers for one original layer mean that the original keeps them in one matrix, rows in this order.
    """

    diffusers_prefix: str
    original_prefix: str
    layers: dict[tuple[str, ...], str]


BLOCK_NAMINGS = (
    BlockNaming("blocks.{}.", "blocks.{}.", {(ours,): BLOCK_LAYERS[ours] for ours in BLOCK_LAYERS}),
    BlockNaming("", "", {(ours,): OUTER_LAYERS[ours] for ours in OUTER_LAYERS}),
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


def flatten_name(name: str) -> str:
    """The name with dots as underscores: what all spellings of one layer have in common."""
    return name.replace(".", "_")


def to_original(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Of a layer's name in diffusers: the original layer and all of diffusers' layers that it holds. None when it has no other name."""
    for naming in BLOCK_NAMINGS:
        number, rest = _split_block_name(naming.diffusers_prefix, name)
        for parts, original in naming.layers.items():
            if rest in parts:
                prefix = naming.diffusers_prefix.format(number)
                return naming.original_prefix.format(number) + original, tuple(prefix + part for part in parts)
    return None


def to_diffusers(original: str) -> tuple[str, ...] | None:
    """Of a layer's original name: diffusers' layers that it holds. None when it is no such name."""
    for naming in BLOCK_NAMINGS:
        number, rest = _split_block_name(naming.original_prefix, original)
        for parts, name in naming.layers.items():
            if rest == name:
                return tuple(naming.diffusers_prefix.format(number) + part for part in parts)
    return None


def _split_block_name(template: str, name: str) -> tuple[str, str]:
    """Block number and the rest of a name; the rest is empty when the name does not stand in such a block."""
    head = template.partition("{}")[0]
    if not head:
        return "", name
    number, _, rest = name.removeprefix(head).partition(".")
    return (number, rest) if name.startswith(head) and number.isdecimal() else ("", "")


def index_flat_names(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Every flat spelling under which a file may hold these layers of a model in diffusers, with the layers that it stands for."""
    known = set(names)
    index: dict[str, tuple[str, ...]] = {flatten_name(name): (name,) for name in known}
    for name in known:
        found = to_original(name)
        if found and known.issuperset(found[1]):
            # Where both namings use a word, diffusers' own layer keeps it.
            index.setdefault(flatten_name(found[0]), found[1])
    return index
