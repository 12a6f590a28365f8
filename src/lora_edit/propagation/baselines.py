"""The three classical baselines, keyed by their names in tables. None of them uses a model."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lora_edit.propagation.colour_map import apply_colour_map
from lora_edit.propagation.flow_warp import warp_with_flow
from lora_edit.propagation.moving_layer import composite_moving_layer
from lora_edit.types import EditMask

FLOW_WARP, COLOUR_MAP, MOVING_LAYER = "flow warp", "colour map", "moving layer"

BASELINES: dict[str, Callable[[torch.Tensor, torch.Tensor, EditMask], torch.Tensor]] = {
    FLOW_WARP: warp_with_flow,
    COLOUR_MAP: apply_colour_map,
    MOVING_LAYER: composite_moving_layer,
}
"""Name -> function from source `[T, H, W, 3]` uint8, edited first frame `[H, W, 3]` uint8 and mask to the edited clip `[T, H, W, 3]`."""
