"""Single files against Wan's own modules: what these save, read by ours, computes the same.

Needs a checkout of github.com/Wan-Video/Wan2.1, whose place LORA_EDIT_UPSTREAM names; nothing of it is kept here.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import diffusers
import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from lora_edit.models.checkpoints.single_file import build_empty_module, load_weights
from lora_edit.models.families.wan.key_names import (
    build_vae_key_renamer,
    rename_image_encoder_key,
    rename_text_encoder_key,
    rename_transformer_key,
)
from lora_edit.models.families.wan.record import WAN21_FLF2V, WAN21_I2V_480P
from single_files import save
from upstream import skip_reason

UPSTREAM = Path(os.environ.get("LORA_EDIT_UPSTREAM", "/nowhere")) / "Wan2.1" / "wan" / "modules"
pytestmark = [
    pytest.mark.skipif(not UPSTREAM.is_dir(), reason=skip_reason("Wan2.1")),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
WIDE = torch.float32


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **_: Any) -> torch.Tensor:
    """Compute flash attention for `[B, L, N, C]` without padding."""
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports one of Wan's modules; what they ask for and this test has not is a stand-in."""
    stands_in: dict[str, dict[str, Any]] = {
        "upstream_wan.attention": {"flash_attention": attention},
        "upstream_wan.tokenizers": {"HuggingfaceTokenizer": None},
        "upstream_wan.xlm_roberta": {"XLMRoberta": torch.nn.Module},
        "torchvision.transforms": {},
    }
    for name, members in {"upstream_wan": {"__path__": [str(UPSTREAM)]}, "torchvision": {}, **stands_in}.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)  # a default argument of theirs
    torch.manual_seed(0)
    yield lambda name: importlib.import_module(f"upstream_wan.{name}")
    for name in [name for name in sys.modules if name.startswith("upstream_wan.")]:
        del sys.modules[name]


def filled(theirs: Any, ours: Any, rename: Any, folder: Path) -> Any:
    """Our module with what theirs saves, every parameter made to differ from its first value."""
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    return load_weights(build_empty_module(ours), [save(theirs.state_dict(), folder / "x.safetensors")], rename, lambda name: WIDE).eval()


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("record", [WAN21_I2V_480P, WAN21_FLF2V], ids=["i2v", "flf2v"])
@torch.no_grad()
def test_transformers(upstream: Any, tmp_path: Path, record: Any) -> None:
    """With one picture and with two, whose places are learned."""
    kind = "flf2v" if record.last_frame else "i2v"
    theirs = (
        upstream("model")
        .WanModel(kind, in_dim=36, dim=48, ffn_dim=64, freq_dim=32, text_dim=24, out_dim=16, num_heads=2, num_layers=2)
        .eval()
    )
    config = record.read_transformer_config() | {
        "num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 64, "freq_dim": 32, "text_dim": 24, "num_layers": 2,
        "added_kv_proj_dim": 48,
    }  # fmt: skip
    ours = filled(theirs, lambda: diffusers.WanTransformer3DModel.from_config(config), rename_transformer_key, tmp_path)
    noisy, condition, text = random(16, 3, 4, 6), random(20, 3, 4, 6, seed=1), random(512, 24, seed=2)
    pictures = random(2 if record.last_frame else 1, 257, 1280, seed=3)
    time = torch.tensor([637.0])
    their = theirs([noisy], time, [text], 3 * 2 * 3, clip_fea=pictures, y=[condition])[0]
    own = ours(torch.cat([noisy, condition])[None], time, text[None], encoder_hidden_states_image=pictures, return_dict=False)[0][0]
    torch.testing.assert_close(own, their, atol=1e-4, rtol=0)


@torch.no_grad()
def test_autoencoders(upstream: Any, tmp_path: Path) -> None:
    """Encoding of nine frames, and back."""
    theirs = upstream("vae").WanVAE_(dim=8, z_dim=16, temperal_downsample=[False, True, True]).eval()
    ours = filled(theirs, lambda: diffusers.AutoencoderKLWan(base_dim=8), build_vae_key_renamer(2), tmp_path)
    pixels, plain = random(1, 3, 9, 32, 32), [torch.zeros(16), torch.ones(16)]
    latents = theirs.encode(pixels, plain)
    torch.testing.assert_close(ours.encode(pixels).latent_dist.mode(), latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.decode(latents, return_dict=False)[0], theirs.decode(latents, plain).clamp(-1, 1), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_text_encoders(upstream: Any, tmp_path: Path) -> None:
    """With padding behind the prompt, which is masked."""
    theirs = upstream("t5").T5Encoder(50, 16, 16, 24, 2, 3, 32, shared_pos=False, dropout=0.0).eval()
    config = UMT5Config(
        vocab_size=50, d_model=16, d_kv=8, d_ff=24, num_layers=3, num_heads=2, feed_forward_proj="gated-gelu", dropout_rate=0.0
    )
    ours = filled(theirs, lambda: UMT5EncoderModel(config), rename_text_encoder_key, tmp_path)
    ids = torch.randint(3, 50, (1, 40), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 40, dtype=torch.long)
    mask[:, 30:] = 0
    own = ours(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(own[:, :30], theirs(ids, mask)[:, :30], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_image_encoders(upstream: Any, tmp_path: Path) -> None:
    """The last but one layer's tokens."""
    kinds: dict[str, Any] = {"image_size": 28, "patch_size": 14, "num_heads": 2, "num_layers": 3}
    theirs = upstream("clip").VisionTransformer(dim=16, mlp_ratio=4, out_dim=8, activation="gelu", **kinds).eval()
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14, hidden_act="gelu"
    )
    holder = torch.nn.Module()
    holder.visual = theirs
    ours = filled(holder, lambda: CLIPVisionModel(config), rename_image_encoder_key, tmp_path)
    picture = random(2, 3, 28, 28)
    own = ours(picture, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(own, theirs(picture, use_31_block=True), atol=1e-5, rtol=1e-5)
