"""Tiny Wan models as the files that people have: the modules' tensors under the names of the original checkpoints and of ComfyUI's files.

The renaming is written here once more, the other way round and by other means than in the package.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lora_edit.models.record import ModelRecord
from tiny_wan import tiny_components, tiny_config

State = dict[str, torch.Tensor]

TRANSFORMER = (
    (r"^condition_embedder\.image_embedder\.pos_embed$", "img_emb.emb_pos"),
    (r"^condition_embedder\.image_embedder\.norm1", "img_emb.proj.0"),
    (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj", "img_emb.proj.1"),
    (r"^condition_embedder\.image_embedder\.ff\.net\.2", "img_emb.proj.3"),
    (r"^condition_embedder\.image_embedder\.norm2", "img_emb.proj.4"),
    (r"^condition_embedder\.text_embedder\.linear_1", "text_embedding.0"),
    (r"^condition_embedder\.text_embedder\.linear_2", "text_embedding.2"),
    (r"^condition_embedder\.time_embedder\.linear_1", "time_embedding.0"),
    (r"^condition_embedder\.time_embedder\.linear_2", "time_embedding.2"),
    (r"^condition_embedder\.time_proj", "time_projection.1"),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out", "head.head"),
    (r"\.scale_shift_table$", ".modulation"),
    (r"\.norm2\.(weight|bias)$", r".norm3.\1"),
    (r"\.add_([kv])_proj", r".\1_img"),
    (r"\.norm_added_k", ".norm_k_img"),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.ffn\.net\.0\.proj", ".ffn.0"),
    (r"\.ffn\.net\.2", ".ffn.2"),
)
VAE = (
    (r"^quant_conv", "conv1"),
    (r"^post_quant_conv", "conv2"),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"\.(\d+)\.norm1\.", r".\1.residual.0."),
    (r"\.(\d+)\.conv1\.", r".\1.residual.2."),
    (r"\.(\d+)\.norm2\.", r".\1.residual.3."),
    (r"\.(\d+)\.conv2\.", r".\1.residual.6."),
    (r"mid_block\.resnets\.0", "middle.0"),
    (r"mid_block\.attentions\.0", "middle.1"),
    (r"mid_block\.resnets\.1", "middle.2"),
    (r"down_blocks", "downsamples"),
)
TEXT = (
    (r"^shared\.", "token_embedding."),
    (r"^encoder\.final_layer_norm", "norm"),
    (r"^encoder\.block\.", "blocks."),
    (r"layer\.0\.layer_norm", "norm1"),
    (r"layer\.1\.layer_norm", "norm2"),
    (r"layer\.0\.SelfAttention\.relative_attention_bias", "pos_embedding.embedding"),
    (r"layer\.0\.SelfAttention\.", "attn."),
    (r"layer\.1\.DenseReluDense\.wi_0", "ffn.gate.0"),
    (r"layer\.1\.DenseReluDense\.wi_1", "ffn.fc1"),
    (r"layer\.1\.DenseReluDense\.wo", "ffn.fc2"),
)
PICTURE = (
    (r"^embeddings\.class_embedding", "cls_embedding"),
    (r"^embeddings\.position_embedding\.weight", "pos_embedding"),
    (r"^embeddings\.", ""),
    (r"^pre_layrnorm", "pre_norm"),
    (r"^post_layernorm", "post_norm"),
    (r"^encoder\.layers\.", "transformer."),
    (r"layer_norm(\d)", r"norm\1"),
    (r"self_attn\.out_proj", "attn.proj"),
    (r"mlp\.fc1", "mlp.0"),
    (r"mlp\.fc2", "mlp.2"),
)


def weights(module: Any) -> State:
    """A module's parameters, each once, by diffusers' or transformers' names."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def renamed(state: State, rules: tuple[tuple[str, str], ...], prefix: str = "") -> State:
    """Every rule on every name, in order."""
    out = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        out[prefix + name] = tensor
    return out


def original_transformer(module: Any, prefix: str = "") -> State:
    """As in Wan's own checkpoints; ComfyUI's and Kijai's differ by the prefix."""
    return renamed(weights(module), TRANSFORMER, prefix)


def original_vae(module: Any) -> State:
    """As in Wan's own file and ComfyUI's; the decoder's blocks are one list, in order of first appearance."""
    places = re.compile(r"decoder\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.")
    found = {
        match[0]: (int(match[1]), match[2] == "upsamplers", int(match[3])) for name in weights(module) if (match := places.match(name))
    }
    flat = {head: f"decoder.upsamples.{number}." for number, head in enumerate(sorted(found, key=lambda head: found[head]))}
    return renamed({places.sub(lambda m: flat[m[0]], name): tensor for name, tensor in weights(module).items()}, VAE)


def original_text(module: Any) -> State:
    """As in `models_t5_umt5-xxl-enc-bf16.pth` (Wan2.1 `wan/modules/t5.py`)."""
    return renamed(weights(module), TEXT)


def original_picture(module: Any) -> State:
    """As in Wan's `models_clip_open-clip-...pth` (Wan2.1 `wan/modules/clip.py`): query, key and value in one matrix."""
    state = weights(module)
    for name in [name for name in state if ".self_attn.q_proj." in name]:
        parts = [state.pop(name.replace("q_proj", f"{one}_proj")) for one in "qkv"]
        state[name.replace("self_attn.q_proj", "attn.to_qkv")] = torch.cat(parts)
    state["embeddings.class_embedding"] = state["embeddings.class_embedding"].view(1, 1, -1)
    state["embeddings.position_embedding.weight"] = state["embeddings.position_embedding.weight"][None]
    out = renamed(state, PICTURE, "visual.")
    return out | {"visual.head": torch.zeros(4, 4), "log_scale": torch.zeros(()), "textual.head.0.weight": torch.zeros(2, 2)}


def comfyui_picture(module: Any) -> State:
    """As in `clip_vision_h.safetensors`: transformers' older names, with the projection and the positions' numbers."""
    state = {f"vision_model.{name}": tensor for name, tensor in weights(module).items()}
    return state | {"visual_projection.weight": torch.zeros(4, 4), "vision_model.embeddings.position_ids": torch.arange(5)[None]}


PIECES = ("<pad>", "</s>", "<s>", "<unk>", "▁", "▁a", "▁red", "▁green", "▁coat", "▁p3rs0n,", "a", "c", "d", "e", "o", "r", "t")


def spiece_model() -> bytes:
    """A sentencepiece unigram model in its own format: longer pieces are likelier, `<unk>` is marked as the unknown one."""

    def sized(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    out = b""
    for piece in PIECES:
        kind = 2 if piece == "<unk>" else 3 if piece.startswith("<") else 1
        score = struct.pack("<f", -10.0 + len(piece))
        out += sized(1, sized(1, piece.encode()) + b"\x15" + score + bytes([3 << 3, kind]))
    return out + sized(2, bytes([3 << 3, 1])) + sized(3, b"")


def tensor_of(data: bytes) -> torch.Tensor:
    """Bytes as ComfyUI puts them among the tensors."""
    return torch.tensor(list(data), dtype=torch.uint8)


def scaled(state: State, linears: set[str], newer: bool = False) -> tuple[State, State]:
    """The state with its linear weights as scaled 8-bit floats, and what these are worth, exactly; in ComfyUI's older or newer spelling."""
    out: State = {} if newer else {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    worth = {}
    for name, tensor in state.items():
        if name not in linears:
            out[name] = worth[name] = tensor
            continue
        scale = tensor.abs().max() / 448
        out[name] = (tensor / scale).to(torch.float8_e4m3fn)
        layer = name.removesuffix(".weight")
        out[f"{layer}.weight_scale" if newer else f"{layer}.scale_weight"] = scale
        out[f"{layer}.input_scale" if newer else f"{layer}.scale_input"] = torch.tensor(0.5)
        if newer:
            out[f"{layer}.comfy_quant"] = tensor_of(b'{"format": "float8_e4m3fn"}')
        worth[name] = out[name].float() * scale
    return out, worth


def save(state: State, file: Path) -> Path:
    """Write a file, with its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    return file


def save_sharded(state: State, folder: Path, stem: str) -> Path:
    """Write three shards and their index; returns the index."""
    names = sorted(state)
    where = {}
    for number in range(3):
        file = f"{stem}-{number + 1:05d}-of-00003.safetensors"
        save({name: state[name] for name in names[number::3]}, folder / file)
        where |= dict.fromkeys(names[number::3], file)
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}), "utf-8")
    return index


def tiny_facts(record: ModelRecord, folder: Path, parts: Any) -> ModelRecord:
    """The record that tiny single files answer to; the configurations are kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    vae, text, picture = parts.vae.config, parts.text_encoder.config.to_dict(), parts.image_encoder
    keys = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
    kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size", "hidden_act")
    companions = {
        "vae": {key: vae[key] for key in ("base_dim", "z_dim", "dim_mult", "num_res_blocks", "temperal_downsample")},
        "text_encoder": {key: text[key] for key in keys} | {"feed_forward_proj": text["feed_forward_proj"]},
    }
    if picture is not None:
        companions["image_encoder"] = {key: picture.config.to_dict()[key] for key in kept}
    (folder / "transformer.json").write_text(json.dumps(tiny_config(record)), "utf-8")
    (folder / "companions.json").write_text(json.dumps(companions), "utf-8")
    return replace(
        record,
        config=str(folder / "transformer.json"),
        companions_config=str(folder / "companions.json"),
        geometry=replace(record.geometry, max_frames=9, native_area=32 * 48),
    )


def save_comfyui(record: ModelRecord, folder: Path, prefix: str = "model.diffusion_model.") -> tuple[ModelRecord, Any, list[Path]]:
    """ComfyUI's `models` with one Wan: its record, its components, and its transformers' files."""
    parts = tiny_components(record)
    names = ["wan_i2v_fp16"] if len(record.transformer_parts) == 1 else ["wan2.2_i2v_high_noise_14B", "wan2.2_i2v_low_noise_14B"]
    files = [
        save(original_transformer(module, prefix), folder / "diffusion_models" / "Wan" / f"{name}.safetensors")
        for name, module in zip(names, parts.transformers, strict=True)
    ]
    save(original_vae(parts.vae), folder / "vae" / "wan_2.1_vae.safetensors")
    save(weights(parts.text_encoder) | {"spiece_model": tensor_of(spiece_model())}, folder / "text_encoders" / "umt5_xxl_fp16.safetensors")
    if parts.image_encoder is not None:
        save(comfyui_picture(parts.image_encoder), folder / "clip_vision" / "clip_vision_h.safetensors")
    return tiny_facts(record, folder / ".record", parts), parts, files


def save_original(record: ModelRecord, folder: Path) -> tuple[ModelRecord, Any]:
    """A repository in Wan's own layout, its pickles converted to safetensors one by one, its transformers in shards."""
    parts: Any = tiny_components(record)
    folders = [folder] if len(record.transformer_parts) == 1 else [folder / "high_noise_model", folder / "low_noise_model"]
    for place, module in zip(folders, parts.transformers, strict=True):
        place.mkdir(parents=True, exist_ok=True)
        save_sharded(original_transformer(module), place, "diffusion_pytorch_model")
    save(original_vae(parts.vae), folder / "Wan2.1_VAE.safetensors")
    save(original_text(parts.text_encoder), folder / "models_t5_umt5-xxl-enc-bf16.safetensors")
    if parts.image_encoder is not None:
        save(original_picture(parts.image_encoder), folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors")
    parts.tokenizer.save_pretrained(folder / "google" / "umt5-xxl")
    return tiny_facts(record, folder / ".record", parts), parts
