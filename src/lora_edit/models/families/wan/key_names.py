"""Names of Wan's tensors: in the original checkpoints and ComfyUI's files, and in diffusers' and transformers' modules.

Every renaming function takes a tensor's key in a file, without the prefix of its model, and returns the names of the module's parameters:
several where the file holds them in one matrix (rows in this order), none where the module does not use the tensor. The module's own names
do not change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

KeyRenamer = Callable[[str], tuple[str, ...]]

BLOCK_LAYERS = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn1.norm_q": "self_attn.norm_q",
    "attn1.norm_k": "self_attn.norm_k",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "attn2.norm_q": "cross_attn.norm_q",
    "attn2.norm_k": "cross_attn.norm_k",
    "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img",
    "attn2.norm_added_k": "cross_attn.norm_k_img",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "norm2": "norm3",
    "scale_shift_table": "modulation",
}
"""Within `blocks.N.`: diffusers' name and the original (diffusers `scripts/convert_wan_to_diffusers.py`). Norms 2 and 3 are swapped."""

OUTER_LAYERS = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "proj_out": "head.head",
    "scale_shift_table": "head.modulation",
}
"""Outside the blocks."""

POSITION_LAYERS = {"condition_embedder.image_embedder.pos_embed": "img_emb.emb_pos"}
"""Positions of the tokens of two images (Wan2.1-FLF2V); diffusers' own single-file loader leaves them out."""

TEXT_BLOCK_LAYERS = {
    "norm1": "0.layer_norm",
    "attn.q": "0.SelfAttention.q",
    "attn.k": "0.SelfAttention.k",
    "attn.v": "0.SelfAttention.v",
    "attn.o": "0.SelfAttention.o",
    "pos_embedding.embedding": "0.SelfAttention.relative_attention_bias",
    "norm2": "1.layer_norm",
    "ffn.gate.0": "1.DenseReluDense.wi_0",
    "ffn.fc1": "1.DenseReluDense.wi_1",
    "ffn.fc2": "1.DenseReluDense.wo",
}
"""Within a block: the original name (Wan2.1 `wan/modules/t5.py`), and transformers' within its `layer.`."""

TEXT_BLOCK_LAYERS_GGUF = {
    "attn_norm": "0.layer_norm",
    "attn_q": "0.SelfAttention.q",
    "attn_k": "0.SelfAttention.k",
    "attn_v": "0.SelfAttention.v",
    "attn_o": "0.SelfAttention.o",
    "attn_rel_b": "0.SelfAttention.relative_attention_bias",
    "ffn_norm": "1.layer_norm",
    "ffn_gate": "1.DenseReluDense.wi_0",
    "ffn_up": "1.DenseReluDense.wi_1",
    "ffn_down": "1.DenseReluDense.wo",
}
"""Within a block: llama.cpp's name (gguf-py `tensor_mapping.py`), and transformers' within its `layer.`."""

TEXT_OUTER_LAYERS = {
    "token_embedding": "shared",
    "token_embd": "shared",
    "norm": "encoder.final_layer_norm",
    "enc.output_norm": "encoder.final_layer_norm",
}

IMAGE_BLOCK_LAYERS = {
    "norm1": ("layer_norm1",),
    "attn.to_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": ("self_attn.out_proj",),
    "norm2": ("layer_norm2",),
    "mlp.0": ("mlp.fc1",),
    "mlp.2": ("mlp.fc2",),
}
"""Within a block: the original name (Wan2.1 `wan/modules/clip.py`), and transformers' names."""

IMAGE_OUTER_LAYERS = {
    "cls_embedding": "embeddings.class_embedding",
    "pos_embedding": "embeddings.position_embedding.weight",
    "patch_embedding.weight": "embeddings.patch_embedding.weight",
    "pre_norm.weight": "pre_layrnorm.weight",
    "pre_norm.bias": "pre_layrnorm.bias",
    "post_norm.weight": "post_layernorm.weight",
    "post_norm.bias": "post_layernorm.bias",
}

_RESIDUAL = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2", "shortcut": "conv_shortcut"}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_VAE_OUTER = {
    "conv1": "quant_conv",
    "conv2": "post_quant_conv",
    "encoder.conv1": "encoder.conv_in",
    "decoder.conv1": "decoder.conv_in",
    "encoder.head.0": "encoder.norm_out",
    "decoder.head.0": "decoder.norm_out",
    "encoder.head.2": "encoder.conv_out",
    "decoder.head.2": "decoder.conv_out",
}


def rename_transformer_key(key: str) -> tuple[str, ...]:
    """Rename a transformer's key."""
    block = re.fullmatch(r"(blocks\.\d+\.)(.+)", key)
    prefix, layer, table = (block[1], block[2], BLOCK_LAYERS) if block else ("", key, OUTER_LAYERS | POSITION_LAYERS)
    return (prefix + _rename_layer(layer, {original: ours for ours, original in table.items()}),)


def build_vae_key_renamer(num_res_blocks: int) -> KeyRenamer:
    """Build the renaming of an autoencoder's keys: the decoder is a flat list in files, and blocks of `num_res_blocks + 1` resnets here."""

    def rename(key: str) -> tuple[str, ...]:
        nested = re.fullmatch(r"(encoder|decoder)\.(down|up)samples\.(\d+)\.(?:down|up)samples\.(\d+)\.(.+)", key)
        if nested:  # Wan 2.2's: blocks of resnets, and a resampler whose index is that of the last layer
            side, way, block, index, layer = nested.groups()
            inner = f"{way}sampler" if layer.startswith(("resample", "time_conv")) else f"resnets.{index}"
            return (f"{side}.{way}_blocks.{block}.{inner}.{_rename_layer(layer, _RESIDUAL)}",)
        match = re.fullmatch(r"(encoder|decoder)\.(downsamples|middle|upsamples)\.(\d+)\.(.+)", key)
        if match is None:
            return (_rename_layer(key, _VAE_OUTER),)
        side, group, number, layer = match.groups()
        layer = _rename_layer(layer, _RESIDUAL)
        if group == "middle":
            return (f"{side}.mid_block.{_MIDDLE.get(number, number)}.{layer}",)
        if group == "downsamples":
            return (f"{side}.down_blocks.{number}.{layer}",)
        block, index = divmod(int(number), num_res_blocks + 2)
        inner = f"resnets.{index}" if index <= num_res_blocks else "upsamplers.0"
        return (f"{side}.up_blocks.{block}.{inner}.{layer}",)

    return rename


def rename_text_encoder_key(key: str) -> tuple[str, ...]:
    """Rename a UMT5 encoder's key. ComfyUI's files have transformers' names and the tokenizer as a tensor, GGUF files llama.cpp's names."""
    if key in ("spiece_model", "encoder.embed_tokens.weight"):
        return ()
    block = re.fullmatch(r"(?:enc\.blk|blocks)\.(\d+)\.(.+)", key)
    if block:
        return (f"encoder.block.{block[1]}.layer.{_rename_layer(block[2], TEXT_BLOCK_LAYERS | TEXT_BLOCK_LAYERS_GGUF)}",)
    return (_rename_layer(key, TEXT_OUTER_LAYERS),)


def rename_image_encoder_key(key: str) -> tuple[str, ...]:
    """Rename a CLIP image encoder's key; those of its text encoder and of projections into the shared space are left out."""
    name = key.removeprefix("visual.").removeprefix("vision_model.")
    if name.startswith(("visual_projection", "head", "textual", "log_scale", "logit_scale", "text_model", "text_projection")):
        return ()
    if name.endswith("position_ids"):
        return ()
    block = re.fullmatch(r"transformer\.(\d+)\.(.+)\.(weight|bias)", name)
    if block and block[2] in IMAGE_BLOCK_LAYERS:
        return tuple(f"encoder.layers.{block[1]}.{layer}.{block[3]}" for layer in IMAGE_BLOCK_LAYERS[block[2]])
    return (IMAGE_OUTER_LAYERS.get(name, name),)


def _rename_layer(name: str, table: Mapping[str, str]) -> str:
    """Rename the layer in a parameter's name; the table holds parameters outside of layers by their whole names."""
    if name in table:
        return table[name]
    layer, dot, kind = name.rpartition(".")
    return f"{table[layer]}{dot}{kind}" if layer in table else name


def find_model_prefix(keys: Iterable[str]) -> str:
    """Find the prefix of a transformer's keys, such as ComfyUI's `model.diffusion_model.`; empty without blocks."""
    matches = (re.match(r"(.*?)blocks\.0\.(self_attn|attn1)\.", key) for key in keys)
    return next((match[1] for match in matches if match), "")
