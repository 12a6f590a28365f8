"""Write `docs/models.md` from the catalogue: `PYTHONPATH=src python tools/models_page.py`."""

from __future__ import annotations

import json
from pathlib import Path

from lora_edit.config import EditSettings, resolve_settings
from lora_edit.models.families.hunyuan.record import HUNYUAN_LOADER
from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.record import ModelRecord

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "models.md"
EMBEDDED = ROOT / "src" / "lora_edit" / "models" / "weights" / "tiny" / "transformer" / "config.json"
HEAD = """# Models

`lora-edit models` lists them, with what of them lies on this machine. This page is written by `tools/models_page.py` from the
records in `src/lora_edit/models/families/`.
"""
GRID = """
## What each takes

Input channels are noise, mask and condition latents, in this order (HunyuanVideo's mask comes last); where there are latents alone,
what is given stands in the noise's place. A stride is pixels per latent cell, and frames per latent frame behind the first. Frames are
the most it takes at once (a whole number of strides and one; longer clips are made window by window), and the area is a frame's that it
works best at: frames of any shape are scaled to it, in whole tokens.

| model | input channels | stride | token | frames | area | text tokens | image encoder | upstream |
|---|---|---|---|---|---|---|---|---|
"""
DEFAULTS = """
## Defaults

What is not set here is as in [settings.md](settings.md) for every model, the paper's. Download sizes are approximate; memory is
estimated, but for the embedded model's.

| model | steps | shift | guidance | LoRA rate | download | memory | licence | weights |
|---|---|---|---|---|---|---|---|---|
"""
TAIL = """
## Where weights come from

`--model` takes one of the names above, a Hub repository, or `NAME@PLACE`: that model, from a folder, a single file or a repository. A
folder or file alone will do where its shape fits one model only. [loading.md](loading.md) says which files are read, how to use ComfyUI's,
how to download a model, and what is checked first.

## One by one

- **wan2.1-i2v-480p, wan2.1-i2v-720p.** The paper's base model and its larger sister. The image encoder sees the first frame squeezed into
  a square, as in training, not cut to one.
- **wan2.1-flf2v.** Shown the last frame beside the first, in the mask, in V_cond and by the image encoder. The edited last frame is given
  as an anchor (`--anchor 48=last.png` for 49 frames), and the clip has to fit one window. In training each window's last frame is given
  too, so that what the model is told stays the same.
- **wan2.1-fun-1.3b, wan2.1-fun-14b.** Pretrained with masks, so they know the task before the LoRA. Upstream's masks have soft edges, and
  with nothing given its condition latents are zeros; ours have whole cells, and frame 0 is always given.
- **skyreels-v2-i2v.** Wan2.1 trained further at 24 frames per second, up to 97 frames.
- **wan2.2-i2v-a14b.** Two transformers of 14 billion parameters: one for times of 0.9 and above, one below. Each gets a LoRA of its own
  (`lora/edit-high-noise.safetensors`, `lora/edit-low-noise.safetensors`), trained in turn at its own times only, so training takes twice
  as long. There is no image encoder.
- **wan2.2-ti2v-5b, ltx-video.** They have no mask channel: each token is told a time of its own, and what is given stands in its place
  clean, at time 0. Upstream gives frame 0 so; here any token of V_cond can be given that lies outside the edit region whole, which is 32x32
  pixels for as long as a latent frame (4 or 8 frames): the region grows to that. A single frame within a latent frame is not given
  alone, so an anchor is shown in the result but does not guide the frames beside it. The autoencoders mix neighbours, so what is given
  near the region carries a little of the grey in it; the composite has the source's pixels there.
- **ltx-video.** LTX-Video 0.9.5; a folder of 0.9.0 is taken too and told from it by its autoencoder, one of 0.9.1 is refused (its decoder
  draws noise). The posterior's mode is taken where the stock pipelines draw from it, given frames stay clean where they add noise, and
  every clip counts as one of 25 frames per second. The decoder gets the little noise that it is made for, the same each time. Its
  tokenizer, a SentencePiece file, is read without a library for it.
- **hunyuan-i2v.** One mask channel: a cell is given whole or not at all, and its latents are zeros where it is not. Frame 0 is encoded a
  second time alone, as upstream does. LLaVA reads the prompt in upstream's template together with the current first frame, CLIP reads the
  prompt alone. The transformer is told its guidance as a number, without a second pass. All decoded frames are kept.
- **hunyuan-i2v-16.** It has no mask channel, and its blocks treat frame 0 apart: the naive LoRA (paper 3.2)
  and nothing else, said before a run.
- **hunyuan-1.5-i2v.** One mask channel as well. Qwen2.5-VL and a glyph encoder (ByT5) read the prompt, SigLIP sees the first frame.

Autoencoder, text and image encoders and transformers take turns on the device; an encoder that it cannot hold computes layer by layer.
The autoencoder stays in float32. Norms, time embedding and modulation tables stay in float32 in a bfloat16 model, as diffusers keeps them.
"""


def grid_row(facts: ModelRecord) -> str:
    """One row of the first table."""
    config, geometry = facts.read_transformer_config() or json.loads(EMBEDDED.read_text("utf-8")), facts.geometry
    latents, total = config["out_channels"], config["in_channels"]
    mask, hunyuan = total - 2 * latents, facts.loader == HUNYUAN_LOADER
    channels = str(latents) if total == latents else " + ".join(map(str, (latents, latents, mask) if hunyuan else (latents, mask, latents)))
    pictures = "none"
    if facts.image_encoder:
        pictures = "SigLIP" if hunyuan else "CLIP ViT-H/14, both ends" if facts.last_frame else "CLIP ViT-H/14"
    cells = [
        f"`{facts.name}`",
        channels if total == latents else f"{total} = {channels}",
        f"{geometry.spatial_compression}x{geometry.spatial_compression}, {geometry.temporal_compression}",
        f"{geometry.token_size}x{geometry.token_size}",
        str(geometry.max_frames),
        f"{geometry.native_area:,}",
        str(facts.text_length or "none"),
        pictures,
        f"`{facts.upstream}`",
    ]
    return f"| {' | '.join(cells)} |"


def defaults_row(facts: ModelRecord) -> str:
    """One row of the second table."""
    settings: EditSettings = resolve_settings({"input": {"source": "-", "first_frame": "-"}, "model": facts.name})
    generation = settings.generation
    weights = f"[{facts.repo}](https://huggingface.co/{facts.repo})" if facts.repo else "included"
    cells = [
        f"`{facts.name}`",
        str(generation.steps),
        f"{generation.shift:g}",
        f"{generation.guidance_scale:g}",
        f"{settings.training.learning_rate:g}",
        f"{facts.download_gb:g} GB" if facts.download_gb else "none",
        facts.memory,
        facts.license,
        weights,
    ]
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """The page's text."""
    grid, defaults = ("\n".join(row(facts) for facts in KNOWN_MODELS) for row in (grid_row, defaults_row))
    return f"{HEAD}{GRID}{grid}\n{DEFAULTS}{defaults}\n{TAIL}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
