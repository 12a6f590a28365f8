"""A short hash of a checkpoint's weights, cheap to compute."""

from __future__ import annotations

import hashlib

from torch import nn


def compute_fingerprint(name: str, transformer: nn.Module) -> str:
    """Hash the model's name and its transformer's first and last weights, without a LoRA's.

    Checkpoints that were trained whole differ in these. Checkpoints that differ in other layers only, such as a base with a LoRA merged
    into its attention, have the same fingerprint.
    """
    digest = hashlib.sha256(name.encode())
    weights = [parameter for key, parameter in transformer.named_parameters() if "lora_" not in key]
    for tensor in (weights[0], weights[-1]):
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
