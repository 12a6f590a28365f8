"""Count the memory of every autoencoder's encoder and decoder: `PYTHONPATH=src python tools/autoencoder_memory.py [NAME ...]`.

Each runs on torch's meta device at one tile's size, call by call; the peak per pixel goes to `configs/autoencoders.json`, from which
estimates are made (`src/lora_edit/models/runtime/autoencoder_memory.py`). Takes minutes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from lora_edit.models.runtime.autoencoder_memory import (
    AUTOENCODERS_FILE,
    AutoencoderCost,
    build_meta_autoencoder,
    read_autoencoder_costs,
    run_on_meta,
)
from lora_edit.models.runtime.step_cost import LiveMemoryTracker, fused_attention
from lora_edit.types import Size

SIDE = 256
"""Pixels per side of a frame: the size of a tile."""

LATENT_FRAMES = {"AutoencoderKLWan": (4,), "AutoencoderKLHunyuanVideo": (1, 2, 3, 4, 5)}
"""Latent frames of the counted clips by class; a Wan autoencoder processes one at a time, so one clip is enough."""
OTHER_LATENT_FRAMES = (1, 2, 4, 8)


def count_networks(cost: AutoencoderCost) -> dict[str, Any]:
    """Count the weights, and the peak bytes per pixel of encoder and decoder by latent frames of a call."""
    autoencoder = build_meta_autoencoder(cost)
    vae = autoencoder.vae
    counted: dict[str, dict[int, float]] = {"encoder_bytes": {}, "decoder_bytes": {}}
    for latent_frames in LATENT_FRAMES.get(cost.class_name, OTHER_LATENT_FRAMES):
        for encode, network, key in ((True, vae.encoder, "encoder_bytes"), (False, vae.decoder, "decoder_bytes")):
            tracker = LiveMemoryTracker()
            calls = _record_calls(network, tracker)
            with fused_attention():
                run_on_meta(autoencoder, Size(SIDE, SIDE), latent_frames, encode=encode, tiled=False, tracker=tracker)
            del network.forward
            frames = 1 if cost.class_name == "AutoencoderKLWan" else latent_frames
            counted[key][frames] = round(max(calls) / SIDE**2, 3)
            print(cost.class_name, key, frames, counted[key][frames], file=sys.stderr, flush=True)
    return {"weight_bytes": sum(each.nbytes for each in vae.parameters()), **counted}


def _record_calls(network: Any, tracker: LiveMemoryTracker) -> list[int]:
    """Record the peak of every call of a network: the bytes beyond those alive before the first one, without earlier outputs."""
    peaks: list[int] = []
    forward: Callable[..., torch.Tensor] = network.forward
    returned = [0]
    start: list[int] = []

    def record(*args: Any, **kwargs: Any) -> torch.Tensor:
        start.append(tracker.current_bytes)
        tracker.peak_bytes = tracker.current_bytes
        output = forward(*args, **kwargs)
        # What earlier calls returned is counted where it is kept; what they left in caches belongs to the network.
        peaks.append(tracker.peak_bytes - start[0] - returned[0])
        returned[0] += output.nbytes
        return output

    network.forward = record
    return peaks


def main(names: Sequence[str]) -> None:
    """Count the named autoencoders, or all, and write the file."""
    entries = json.loads(AUTOENCODERS_FILE.read_text("utf-8"))
    for name, cost in read_autoencoder_costs().items():
        if not names or name in names:
            entries[name] |= count_networks(cost)
    AUTOENCODERS_FILE.write_text(json.dumps(entries, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
