"""A reference picture beside the frame: the input of ACE++'s portrait and subject LoRAs for FLUX.1 Fill.

From ali-vilab/ACE_plus at f3e410b: `inference/utils.py` (`ACEPlusImageProcessor`) puts the reference to the left of the frame, at the
frame's height by a bilinear filter, with the mask zero over it. Pictures longer than 4:1 are cropped to that around their centre. Both
together are shrunk to at most 4096 tokens of 16x16 pixels, and never enlarged. The instruction has no prefix
(`examples/examples.py`), and masked pixels are hidden completely (repainting scale 1). Guidance 50 and 28 steps are those of
`config/ace_plus_diffusers_infer.yaml`, 512 tokens of text those of `inference/ace_plus_diffusers.py`.

One difference: upstream rounds the size of the pair to whole tokens, which puts the seam inside a token, and removes thirty pixels beside
it from the output before it is stretched to the frame's size. Here each picture has whole tokens, so that kept pixels keep their place.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

TOKEN_SIZE = 16
MAX_TOKENS = 4096
MAX_ASPECT_RATIO = 4


@dataclass(frozen=True)
class ReferenceLayout:
    """Reference and frame as one picture; `mask` is white where to paint, `frame_left` the first column of the frame."""

    image: Image.Image
    mask: Image.Image
    frame_left: int

    def crop_frame(self, output: Image.Image) -> Image.Image:
        """Crop the frame from a picture of this size."""
        return output.crop((self.frame_left, 0, *output.size))


def build_reference_layout(reference: Image.Image, frame: Image.Image, mask: Image.Image) -> ReferenceLayout:
    """Lay out a reference beside a frame, in whole tokens; `mask` has the frame's size."""
    reference = _crop_to_max_aspect_ratio(reference)
    width = max(1, int(reference.width * frame.height / reference.height))
    scale = min(1.0, (MAX_TOKENS * TOKEN_SIZE**2 / ((width + frame.width) * frame.height)) ** 0.5)
    height, frame_left, frame_width = (_round_to_tokens(side * scale) for side in (frame.height, width, frame.width))
    picture, hole = Image.new("RGB", (frame_left + frame_width, height)), Image.new("L", (frame_left + frame_width, height))
    picture.paste(reference.resize((frame_left, height), Image.Resampling.BILINEAR), (0, 0))
    picture.paste(frame.resize((frame_width, height), Image.Resampling.BILINEAR), (frame_left, 0))
    hole.paste(mask.resize((frame_width, height), Image.Resampling.NEAREST), (frame_left, 0))
    return ReferenceLayout(picture, hole, frame_left)


def _round_to_tokens(side: float) -> int:
    """Round down to whole tokens, so that the limit holds; at least one."""
    return max(TOKEN_SIZE, int(side) // TOKEN_SIZE * TOKEN_SIZE)


def _crop_to_max_aspect_ratio(image: Image.Image) -> Image.Image:
    width, height = min(image.width, MAX_ASPECT_RATIO * image.height), min(image.height, MAX_ASPECT_RATIO * image.width)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
