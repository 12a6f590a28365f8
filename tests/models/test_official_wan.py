"""Our Wan against Alibaba's own code (Wan2.1), with the same weights: its modules one by one, and its pipeline as a whole."""

from __future__ import annotations

import math
import random
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import UMT5Config, UMT5EncoderModel

from lora_edit.conditioning.method import build_inference_sample
from lora_edit.conditioning.sample import Sample
from lora_edit.models.families.wan.encoders import PromptEncoder, WanAutoencoder, resize_for_clip
from lora_edit.models.families.wan.loading import Components, build_wan
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager
from official_wan import CLIP, TEXT, TOKENS, autoencoders_pair, picture_towers, randomised, transformers_pair, wan_module
from tiny_wan import WANS, tiny_tokenizer
from upstream import agree, checkout, load, take

ROWS, COLUMNS = 32, 48
FRAMES = {"i2v": 9, "flf2v": 81}
"""The only length of the official first-and-last-frame pipeline."""
MODELS = {"i2v": "wan2.1-i2v-480p", "flf2v": "wan2.1-flf2v"}
PIPELINES = {"i2v": ("wan/image2video.py", "WanI2V.generate"), "flf2v": ("wan/first_last_frame2video.py", "WanFLF2V.generate")}
TIME = 0.7

# Upstream asks for autocast on a device, which is not there.
pytestmark = pytest.mark.filterwarnings("ignore:.*autocast:FutureWarning", "ignore:.*autocast:UserWarning")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def picture(seed: int) -> Image.Image:
    """A noisy frame."""
    pixels = torch.randint(256, (ROWS, COLUMNS, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def as_pixels(image: Image.Image) -> torch.Tensor:
    """`[3, H, W]` in [0, 1], as torchvision's `to_tensor`."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("kind", ["i2v", "flf2v"])
def test_the_transformer_equals_the_official_one(kind: str) -> None:
    """One forward pass with text, picture tokens and condition channels; the weights travel by our own table of names."""
    ours, theirs = transformers_pair(kind)
    pictures = 2 if kind == "flf2v" else 1
    noisy, condition, text, shown = (
        drawn(16, 3, 4, 6),
        drawn(20, 3, 4, 6, seed=1),
        drawn(7, TEXT, seed=2),
        drawn(pictures, TOKENS, CLIP, seed=3),
    )
    padded = torch.cat([text, torch.zeros(512 - len(text), TEXT)])
    time = torch.tensor([1000 * TIME])
    expected = theirs([noisy], time, [text], seq_len=3 * 2 * 3, clip_fea=shown, y=[condition])[0]
    found = ours(torch.cat([noisy, condition])[None], time, padded[None], encoder_hidden_states_image=shown, return_dict=False)[0]
    agree(found[0], expected, 1e-4)


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_the_autoencoder_equals_the_official_one(frames: int) -> None:
    """Normalised latents of a clip, and the clip that they decode to."""
    ours, theirs = autoencoders_pair()
    clip = drawn(3, frames, ROWS, COLUMNS).tanh()
    latents = WanAutoencoder(ours).encode(clip[None])
    agree(latents[0], theirs.encode([clip])[0], 1e-5)
    agree(WanAutoencoder(ours).decode(latents)[0], theirs.decode([latents[0]])[0], 2e-5)


def test_images_are_encoded_to_the_official_tokens() -> None:
    """Stretched and normalised alike, bit for bit, and the same last but one layer."""
    ours, theirs = picture_towers()
    shown = drawn(3, ROWS, COLUMNS).tanh()
    seen: list[torch.Tensor] = []
    tower = theirs.model.visual
    tower.patch_embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    tokens = theirs.visual([shown[:, None].clone()])
    agree(resize_for_clip(shown[None], 224), seen[0], 1e-6)
    agree(ours(resize_for_clip(shown[None], 224), output_hidden_states=True).hidden_states[-2], tokens, 1e-5)


@pytest.mark.parametrize("prompt", ["a red coat", "", "red " * 600])
def test_prompts_are_encoded_to_the_official_embeddings(prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the real tokens; the official transformer pads them with zeros to 512, which we have done."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)  # a default argument of the official file
    official = wan_module("t5")
    sizes = {"vocab_size": 32, "d_model": TEXT, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    encoder: Any = randomised(UMT5EncoderModel(UMT5Config(**sizes)))
    theirs = official.T5Encoder(vocab=32, dim=TEXT, dim_attn=16, dim_ffn=32, num_heads=2, num_layers=2, num_buckets=32, shared_pos=False)
    theirs.load_state_dict({official_text_key(key): value for key, value in encoder.state_dict().items() if "embed_tokens" not in key})
    words = tiny_tokenizer()

    def tokens(texts: list[str], **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        found = words(texts, padding="max_length", max_length=512, truncation=True, return_tensors="pt")
        return found["input_ids"], found["attention_mask"]

    whole = official.T5EncoderModel.__new__(official.T5EncoderModel)
    whole.model, whole.tokenizer = theirs.eval(), tokens
    with torch.no_grad():
        expected = whole([prompt], torch.device("cpu"))[0]
    ours = PromptEncoder(encoder, words, 512, DeviceManager(torch.device("cpu")))(prompt)
    assert ours.shape == (1, 512, TEXT) and not ours[0, len(expected) :].any()
    if len(expected):
        agree(ours[0, : len(expected)], expected, 1e-4)


def official_text_key(key: str) -> str:
    """Of transformers' key."""
    outside = {"shared.weight": "token_embedding.weight", "encoder.final_layer_norm.weight": "norm.weight"}
    if key in outside:
        return outside[key]
    _, _, number, _, layer, rest = key.split(".", 5)
    names = {
        "layer_norm": f"norm{int(layer) + 1}", "SelfAttention.relative_attention_bias": "pos_embedding.embedding",
        "DenseReluDense.wi_0": "ffn.gate.0", "DenseReluDense.wi_1": "ffn.fc1", "DenseReluDense.wo": "ffn.fc2",
    } | {f"SelfAttention.{name}": f"attn.{name}" for name in "qkvo"}  # fmt: skip
    return f"blocks.{number}.{names[rest.removesuffix('.weight')]}.weight"


class Official:
    """One model as ours, and the official pipeline around the official modules, without a device."""

    def __init__(self, kind: str) -> None:
        self.kind, self.record = kind, WANS[MODELS[kind]]
        (transformer, self.transformer), (vae, self.vae), (tower, self.clip) = (
            transformers_pair(kind),
            autoencoders_pair(),
            picture_towers(),
        )
        self.text = drawn(7, TEXT, seed=4)
        self.ours: Any = ours_of(self.record, transformer, vae, tower, torch.cat([self.text, torch.zeros(505, TEXT)])[None])

    def generate(self, pictures: list[Image.Image], frames: int) -> tuple[dict[str, Any], torch.Tensor]:
        """Run one step; returns the transformer's first inputs and its output."""
        calls: list[tuple[dict[str, Any], torch.Tensor]] = []

        def asked(latents: list[torch.Tensor], **given: Any) -> list[torch.Tensor]:
            answer = self.transformer(latents, **given)
            calls.append(({"latents": latents[0], **given}, answer[0]))
            return answer

        asked.to = lambda device: None  # type: ignore[attr-defined]
        itself = SimpleNamespace(
            device=torch.device("cpu"), vae_stride=(4, 8, 8), patch_size=(1, 2, 2), sp_size=1, sample_neg_prompt="", t5_cpu=True, rank=0,
            num_train_timesteps=1000, param_dtype=torch.float32, text_encoder=lambda texts, device: [self.text], clip=self.clip,
            vae=self.vae, model=asked,
        )  # fmt: skip
        file, name = PIPELINES[self.kind]
        method = take(checkout("Wan2.1") / file, name, **names_used())
        method(itself, "", *pictures, max_area=ROWS * COLUMNS, frame_num=frames, sampling_steps=1, seed=3, offload_model=False)
        return calls[0]


def ours_of(record: ModelRecord, transformer: Any, vae: Any, tower: Any, prompt: torch.Tensor) -> Any:
    """Build the family around the components, with a fixed prompt."""
    family: Any = build_wan(
        Components((transformer,), vae, torch.nn.Identity(), lambda *_: None, tower), record, torch.device("cpu"), torch.float32
    )
    object.__setattr__(family.parts, "text_encoder", lambda _: prompt)
    return family


def names_used() -> dict[str, Any]:
    """What the official pipelines' files import."""
    solver = load("Wan2.1", "wan/utils", "fm_solvers_unipc")
    return {
        "math": math, "np": np, "random": random, "sys": sys, "contextmanager": contextmanager, "amp": torch.cuda.amp,
        "tqdm": lambda rows: rows,
        "dist": torch.distributed, "TF": SimpleNamespace(to_tensor=as_pixels),
        "FlowUniPCMultistepScheduler": solver.FlowUniPCMultistepScheduler,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["i2v", "flf2v"])
def test_the_transformer_s_inputs_equal_the_official_pipelines(kind: str) -> None:
    """From pictures to the packed mask (exact), condition latents, picture tokens, and the first velocity."""
    official = Official(kind)
    first, last = picture(1), picture(2)
    frames = FRAMES[kind]
    given, answer = official.generate([first, last] if kind == "flf2v" else [first], frames)
    encoded = official.ours.encode_sample(everything_to_generate(as_pixels(first) * 2 - 1, as_pixels(last) * 2 - 1, frames, kind))
    assert torch.equal(encoded.condition[0, :4], given["y"][0][:4])
    agree(encoded.condition[0, 4:], given["y"][0][4:], 1e-5)
    agree(encoded.image_embeds, given["clip_fea"], 1e-5)
    velocity = official.ours.predict_velocity(given["latents"][None], given["t"] / 1000, encoded)
    agree(velocity[0], answer, 1e-4)


def everything_to_generate(first: torch.Tensor, last: torch.Tensor, frames: int, kind: str) -> Sample:
    """Generate all but the given images, as the official pipeline does."""
    clip = first[:, None].expand(-1, frames, -1, -1).clone()
    anchors = {frames - 1: last} if kind == "flf2v" else {}
    return build_inference_sample(clip, first, torch.ones(frames, ROWS, COLUMNS, dtype=torch.bool), "", anchors)
