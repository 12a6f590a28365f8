"""Write `docs/models.md` from the model records: `PYTHONPATH=src python tools/models_page.py`."""

from __future__ import annotations

import json
from pathlib import Path

from lora_edit.config import EditSettings, resolve_settings
from lora_edit.models.families.hunyuan.record import HUNYUAN_LOADER
from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.record import ModelRecord
from lora_edit.types import Size

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "models.md"
EMBEDDED = ROOT / "src" / "lora_edit" / "models" / "families" / "embedded" / "weights" / "tiny" / "transformer" / "config.json"
HEAD = """# Models

`lora-edit models` lists the models, with the parts of each that are on this machine. `tools/models_page.py` writes this page from the
records in `src/lora_edit/models/families/`.
"""
GRID = """
## Inputs

Input channels are noise, mask and condition latents, in this order (HunyuanVideo's mask comes last). For models with latents alone, given
latents replace the noise. The stride is pixels per latent cell, and frames per latent frame after the first. Frames are the most that the
model processes at once (a whole number of strides and one; longer clips are generated in windows). Tokens are those of a clip of 49 frames
at 832x480, which a step of the transformer computes. The area is the number of pixels of a
frame at which the model works best: frames of any shape are scaled to it, in whole tokens.

| model | input channels | stride | token | tokens | frames | area | text tokens | image encoder | upstream |
|---|---|---|---|---|---|---|---|---|---|
"""
DEFAULTS = """
## Defaults

Settings that are not listed here have the defaults of [settings.md](settings.md), the paper's, except for the embedded model. Download
sizes are approximate. Memory is estimated, except for the embedded model. `python benchmarks/minutes_by_card.py` reckons the minutes of an
edit by model and card.

| model | steps | shift | guidance | LoRA rate | download | memory | licence | weights |
|---|---|---|---|---|---|---|---|---|
"""
CLIP_SIZE, CLIP_FRAMES = Size(480, 832), 49
TAIL = """
## Where weights come from

`--model` accepts a name from the tables, a Hub repository, or `NAME@PLACE`: that model, from a folder, a single file or a repository. A
folder or file alone is enough if its shape fits one model only. [loading.md](loading.md) lists the files that are read, and explains
ComfyUI's files, downloads, and the checks before loading.

## Notes on the models

- **wan2.1-i2v-480p, wan2.1-i2v-720p.** The paper's base model and its larger variant. The image encoder receives the first frame squeezed
  into a square, as in training, not cropped to one.
- **wan2.1-flf2v.** Receives the last frame beside the first, in the mask, in V_cond and in the image encoder. Give the edited last frame as
  an anchor (`--anchor 48=last.png` for 49 frames). The clip has to fit one window. In training each window's last frame is given too, so
  that the condition stays the same.
- **wan2.1-fun-1.3b, wan2.1-fun-14b.** Pretrained with masks, so they can follow a mask before the LoRA is trained. Upstream's masks have
  soft edges, and if nothing is given, upstream's condition latents are zeros. Ours have whole cells, and frame 0 is always given.
- **skyreels-v2-i2v.** Wan2.1 trained further at 24 frames per second, up to 97 frames.
- **wan2.2-i2v-a14b.** Two transformers of 14 billion parameters: one for times of 0.9 and above, one below. Each gets its own LoRA
  (`lora/edit-high-noise.safetensors`, `lora/edit-low-noise.safetensors`), trained in turn at its own times only, so training takes twice as
  long. There is no image encoder.
- **wan2.2-fun-a14b, wan2.2-fun-5b.** Wan2.2's models pretrained with masks, as wan2.1-fun-14b. The first has the files of
  wan2.2-i2v-a14b and another training: a folder or file of either fits both, so give it as `NAME@PLACE`. The second is wan2.2-ti2v-5b with
  mask and condition channels. As upstream, a first frame that is given whole also replaces its noise, at time 0; all other cells are noisy
  and the mask says which are given. Its publisher advises against frames below 640x640.
- **wan2.2-ti2v-5b, ltx-video.** They have no mask channel. Each token has its own time, and given tokens replace the noise, clean, at time
  0, as upstream does for frame 0. Here any token of V_cond can be given that lies wholly outside the edit region: 32x32 pixels for the
  length of a latent frame (4 or 8 frames). The region grows to these tokens. A single frame within a latent frame cannot be given alone, so
  an anchor is shown in the result but does not guide the frames beside it. The autoencoders mix neighbours, so given latents near the
  region contain a little of its grey; the composite has the source's pixels there.
- **ltx-video.** LTX-Video 0.9.5. A folder of 0.9.0 is accepted too and recognised by its autoencoder; a folder of 0.9.1 is refused (its
  decoder draws noise). We use the posterior's mode where the stock pipelines sample it, and keep given frames clean where they add noise.
  The model's input contains the clip's frame rate. Spatio-temporal guidance, which upstream's configuration turns on, is not supported. The
  decoder gets the little noise that it was trained with, the same each time. Its tokenizer, a SentencePiece file, is read without the
  SentencePiece library.
- **ltx-2.3, ltx-2.5.** As ltx-video: given tokens are clean, at time 0. This is the `mask` condition of LTX-2's own LoRA trainer. The
  models also generate sound; here their stream of sound is switched off, as in that trainer's video-only mode, and its layers, three in ten
  parameters of the transformer, take no memory on the device. The result keeps the source's own sound. Every clip is treated as one of 24
  frames per second. Upstream also compresses a given picture with H.264, and guides by skipped attention and by the other stream; neither
  is done here. ltx-2.5 is read from diffusers' `transformer_full/`, not from the distilled `transformer/`, and decoded by the convolutional
  decoder, not by the diffusion decoder. Read the licence before commercial use: entities with annual revenues of at least $10,000,000 need
  a paid one, for LoRAs of the model as well. LTX-2's IC-LoRAs read a reference clip as further tokens, which no model gets here: training
  can start from their pairs (`lora.init`), but their references cannot be given.
- **hunyuan-i2v.** One mask channel: a cell is given whole or not at all, and its latents are zeros if it is not. Frame 0 is encoded a
  second time alone, as upstream does. LLaVA reads the prompt in upstream's template together with the current first frame; CLIP reads the
  prompt alone. The transformer takes its guidance as a number, without a second pass. All decoded frames are kept.
- **hunyuan-i2v-16.** It has no mask channel, and its blocks treat frame 0 separately. It supports only the naive LoRA (paper 3.2); a note
  says so before a run.
- **hunyuan-1.5-i2v.** One mask channel as well. Qwen2.5-VL and a glyph encoder (ByT5) read the prompt, SigLIP reads the first frame.

Autoencoder, text and image encoders and transformers take turns on the device. An encoder that does not fit computes layer by layer. The
autoencoder stays in float32. Norms, time embedding and modulation tables stay in float32 in a bfloat16 model, as diffusers keeps them.
"""


def count_tokens(record: ModelRecord) -> int:
    """Count the tokens of the clip."""
    geometry = record.geometry
    frames = (CLIP_FRAMES - 1) // geometry.temporal_compression + 1
    return frames * (CLIP_SIZE.height // geometry.token_size) * (CLIP_SIZE.width // geometry.token_size)


def grid_row(record: ModelRecord) -> str:
    """Format a row of the first table."""
    config, geometry = record.read_transformer_config() or json.loads(EMBEDDED.read_text("utf-8")), record.geometry
    latents, total = config["out_channels"], config["in_channels"]
    mask, hunyuan = total - 2 * latents, record.loader == HUNYUAN_LOADER
    channels = str(latents) if total == latents else " + ".join(map(str, (latents, latents, mask) if hunyuan else (latents, mask, latents)))
    pictures = "none"
    if record.image_encoder:
        pictures = "SigLIP" if hunyuan else "CLIP ViT-H/14, both ends" if record.last_frame else "CLIP ViT-H/14"
    cells = [
        f"`{record.name}`",
        channels if total == latents else f"{total} = {channels}",
        f"{geometry.spatial_compression}x{geometry.spatial_compression}, {geometry.temporal_compression}",
        f"{geometry.token_size}x{geometry.token_size}",
        f"{count_tokens(record):,}",
        str(geometry.max_frames),
        f"{geometry.native_area:,}",
        str(record.text_length or "none"),
        pictures,
        f"`{record.upstream}`",
    ]
    return f"| {' | '.join(cells)} |"


def defaults_row(record: ModelRecord) -> str:
    """Format a row of the second table."""
    settings: EditSettings = resolve_settings({"input": {"source": "-", "first_frame": "-"}, "model": record.name})
    generation = settings.generation
    weights = f"[{record.repo}](https://huggingface.co/{record.repo})" if record.repo else "included"
    cells = [
        f"`{record.name}`",
        str(generation.steps),
        f"{generation.shift:g}",
        f"{generation.guidance_scale:g}",
        f"{settings.training.learning_rate:g}",
        f"{record.download_gb:g} GB" if record.download_gb else "none",
        record.memory,
        record.license,
        weights,
    ]
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """Build the page's text."""
    grid, defaults = ("\n".join(row(record) for record in KNOWN_MODELS) for row in (grid_row, defaults_row))
    return f"{HEAD}{GRID}{grid}\n{DEFAULTS}{defaults}\n{TAIL}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
