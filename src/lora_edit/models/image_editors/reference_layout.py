"""A reference picture beside the frame, as ACE++'s portrait and subject LoRAs for FLUX.1 Fill are shown it.

Facts from ali-vilab/ACE_plus at f3e410b: `inference/utils.py` (`ACEPlusImageProcessor`) puts the reference to the left of the frame, at the
frame's height by a bilinear filter, with the mask zero over it; pictures longer than 4:1 are cropped to that around their middle; both
together are made smaller until they have 4096 tokens of 16x16 pixels at most, and never larger. The instruction has no prefix
(`examples/examples.py`), and what is masked is hidden altogether (repainting scale 1). Guidance 50 and 28 steps are those of
`config/ace_plus_diffusers_infer.yaml`, 512 tokens of text those of `inference/ace_plus_diffusers.py`.

One thing differs: there the pair is made whole tokens at once, which puts the seam somewhere within one, and thirty pixels beside it are
cut off the answer before it is stretched to the frame's size. Here each of the two is, so that what is kept stays in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

TOKEN_SIZE = 16
MAX_TOKENS = 4096
MAX_ASPECT_RATIO = 4


@dataclass(frozen=True)
class ReferenceLayout:
    """Reference and frame as one picture; `mask` is white where to paint, `seam` the column at which the frame begins."""

    image: Image.Image
    mask: Image.Image
    frame_left: int

    def crop_frame(self, output: Image.Image) -> Image.Image:
        """The frame's part of a picture of this size."""
        return output.crop((self.frame_left, 0, *output.size))


def build_reference_layout(reference: Image.Image, frame: Image.Image, mask: Image.Image) -> ReferenceLayout:
    """The pair, in whole tokens; `mask` has the frame's size."""
    reference = _crop_to_max_aspect_ratio(reference)
    width = max(1, int(reference.width * frame.height / reference.height))
    scale = min(1.0, (MAX_TOKENS * TOKEN_SIZE**2 / ((width + frame.width) * frame.height)) ** 0.5)
    height, seam, own = (_round_to_tokens(side * scale) for side in (frame.height, width, frame.width))
    picture, hole = Image.new("RGB", (seam + own, height)), Image.new("L", (seam + own, height))
    picture.paste(reference.resize((seam, height), Image.Resampling.BILINEAR), (0, 0))
    picture.paste(frame.resize((own, height), Image.Resampling.BILINEAR), (seam, 0))
    hole.paste(mask.resize((own, height), Image.Resampling.NEAREST), (seam, 0))
    return ReferenceLayout(picture, hole, seam)


def _round_to_tokens(side: float) -> int:
    """Down to whole tokens, so that the limit holds; one at least."""
    return max(TOKEN_SIZE, int(side) // TOKEN_SIZE * TOKEN_SIZE)


def _crop_to_max_aspect_ratio(image: Image.Image) -> Image.Image:
    width, height = min(image.width, MAX_ASPECT_RATIO * image.height), min(image.height, MAX_ASPECT_RATIO * image.width)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
