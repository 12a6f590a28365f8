"""Classical baseline: the edited first frame warped along optical flow."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lora_edit.types import EditMask
from lora_edit.video.flow import chain_flow_to_first, sample_image


def warp_with_flow(
    source: torch.Tensor, edited_first: torch.Tensor, mask: EditMask, on_frame: Callable[[int, int], None] = lambda done, total: None
) -> torch.Tensor:
    """Warp the edited first frame `[H, W, 3]` along the source's motion inside the mask; the source is kept outside.

    `source` is `[T, H, W, 3]` uint8. DIS flow is chained into a map from every frame back to the first one
    (`video/flow.py: chain_flow_to_first`). Memory use beyond the result is a few frames. `on_frame` is called with the
    number of frames done and in total. Returns `[T, H, W, 3]` uint8.
    """
    edited, out = edited_first.numpy(), source.clone()
    for index, positions in enumerate(chain_flow_to_first(source)):
        inside = mask.frames[index]
        if inside.any():
            warped = edited_first if index == 0 else torch.from_numpy(sample_image(edited, positions).round().clip(0, 255)).to(torch.uint8)
            out[index][inside] = warped[inside]
        on_frame(index + 1, len(source))
    return out
