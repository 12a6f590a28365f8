"""From source size to the model's size and back: the crop around the edit, scaled to the model's grid.

Training and generation use the same canvas, which is built once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from lora_edit.compositing.blend import composite_frame
from lora_edit.compositing.color import match_colour
from lora_edit.compositing.crop import RegionCrop, compute_crop, crop_frames
from lora_edit.compositing.detail import add_detail
from lora_edit.compositing.settings import CompositingSettings
from lora_edit.conditioning.first_frame_hint import compute_region_boxes
from lora_edit.inputs import Clip
from lora_edit.masks.shapes import feather_frame, snap_to_cells, union_latent_frames
from lora_edit.models.family import Geometry
from lora_edit.propagation.predict import Prediction
from lora_edit.types import Size
from lora_edit.video.ranges import to_frames, to_signed
from lora_edit.video.resize import fit_canvas, resize_frames


@dataclass(frozen=True)
class Canvas:
    """The clip at the model's size.

    `crop` is in source pixels, `size` the model's frame size. `source` `[3, T, h, w]` and the pictures `[3, h, w]` are in
    [-1, 1]; `edit_mask` is `[T, h, w]` bool, grown outward to whole tokens when `is_token_aligned`; `boxes` `[T, 4]` are its bounds before
    that. `captions` are the clip's.
    """

    crop: RegionCrop
    size: Size
    source: torch.Tensor
    edit_mask: torch.Tensor
    boxes: torch.Tensor
    first_frame: torch.Tensor
    references: dict[int, torch.Tensor]
    anchors: dict[int, torch.Tensor]
    is_token_aligned: bool
    captions: Mapping[str, str]

    def select_window(self, frames: Sequence[int], temporal_compression: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Select source `[3, T', h, w]` and edit mask `[T', h, w]` of some frames; masks are united within each latent frame's group."""
        index = torch.tensor(frames)
        mask = self.edit_mask[index]
        return self.source[:, index], union_latent_frames(mask, temporal_compression) if self.is_token_aligned else mask


def plan_canvas(clip: Clip, geometry: Geometry, settings: CompositingSettings) -> tuple[RegionCrop, Size]:
    """Choose the crop, in source pixels, and the frame size that the model works at."""
    whole = RegionCrop(0, 0, clip.video.size.width, clip.video.size.height)
    crop = compute_crop(clip.edit_mask, settings.context, multiple=2) if settings.crop else whole
    share = 1.0 if settings.zoom else crop.size.height * crop.size.width / (whole.height * whole.width)
    return crop, fit_canvas(crop.size, round(geometry.native_area * share), geometry.token_size)


def build_canvas(clip: Clip, geometry: Geometry, settings: CompositingSettings, align_to_tokens: bool) -> Canvas:
    """Crop and resize every input of an edit to the model's size."""
    crop, size = plan_canvas(clip, geometry, settings)

    def resize_picture(picture: torch.Tensor) -> torch.Tensor:
        return to_signed(resize_frames(crop_frames(picture[None], crop), size))[:, 0]

    region = crop_frames(clip.edit_mask.frames, crop)
    mask = shrink_mask(region, size)
    return Canvas(
        crop=crop,
        size=size,
        source=to_signed(resize_frames(crop_frames(clip.video.frames, crop), size)),
        edit_mask=snap_to_cells(mask, (geometry.token_size, geometry.token_size)) if align_to_tokens else mask,
        boxes=compute_region_boxes(region) * torch.tensor([size.width / crop.size.width, size.height / crop.size.height] * 2),
        first_frame=resize_picture(clip.first_frame),
        references={n: resize_picture(p) for n, p in clip.references.items()},
        anchors={n: resize_picture(p) for n, p in clip.anchors.items()},
        is_token_aligned=align_to_tokens,
        captions=clip.captions,
    )


def shrink_mask(mask: torch.Tensor, size: Size) -> torch.Tensor:
    """Resize a mask `[T, H, W]`; a pixel of the result is True when any pixel that it covers is."""
    out = [F.adaptive_max_pool2d(frame[None].float(), (size.height, size.width))[0] > 0 for frame in mask]
    return torch.stack(out)


def paste_into_source(
    clip: Clip, canvas: Canvas, pixels: torch.Tensor, settings: CompositingSettings, prediction: Prediction | None = None
) -> Iterator[torch.Tensor]:
    """Yield the frames `[H, W, 3]` uint8 of the result.

    `pixels` are the generated frames `[3, T, h, w]` in [-1, 1]. Outside the feathered edit region each frame equals the source bit for bit;
    frame 0 shows the edited first frame and an anchor its own image, at full resolution. `prediction` covers the crop and is shown where
    its expected error is small or the model agrees with it.
    """
    small = to_frames(pixels)
    if settings.match_colour and prediction is None:
        small = match_colour(small, to_frames(canvas.source), ~canvas.edit_mask)

    def outputs() -> Iterator[torch.Tensor]:
        for index, source in enumerate(clip.video.frames):
            if prediction is None:
                patch = resize_frames(small[index : index + 1], canvas.crop.size)[0]
            else:
                patch = add_detail(small[index], prediction.frames[index], prediction.errors[index])
            output = source.clone()
            crop_frames(output[None], canvas.crop)[0].copy_(patch)
            yield output

    return composite_clip(clip, outputs(), settings)


def composite_clip(clip: Clip, outputs: Iterable[torch.Tensor], settings: CompositingSettings) -> Iterator[torch.Tensor]:
    """Yield `outputs` `[H, W, 3]` uint8 inside the feathered edit region and the source outside.

    The edited first frame and the anchors replace the outputs of their frames.
    """
    known = {0: clip.first_frame, **clip.anchors}
    for index, (source, output) in enumerate(zip(clip.video.frames, outputs, strict=True)):
        shown = known.get(index, output)
        yield composite_frame(source, shown, compute_blend_weights(clip, index, settings)) if settings.enabled else shown


def compute_blend_weights(clip: Clip, index: int, settings: CompositingSettings) -> torch.Tensor:
    """Compute how much of the output frame `index` of the result shows: weights `[H, W]` in [0, 1], all 1 without compositing."""
    region = clip.edit_mask.frames[index]
    radius = round(settings.feather * min(clip.video.size.height, clip.video.size.width))
    return feather_frame(region, radius) if settings.enabled else torch.ones(region.shape)
