"""Conversion of images with ICC profiles to sRGB, with Pillow's ImageCms (Little CMS)."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_MAX_SRGB_DIFFERENCE = 1  # levels of 255; a profile that differs less counts as sRGB and is not applied


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert an 8-bit image of any mode to sRGB.

    A profile that cannot be read, or is for another colour space than the image's, counts as none, as in browsers.
    """
    profile = image.info.get("icc_profile")
    transform = _build_transform(profile) if profile else None
    if transform is None:
        return image.convert("RGB")
    mode = transform.input_mode
    if mode == "CMYK" and image.mode != "CMYK":
        return image.convert("RGB")
    unprofiled = image.convert("RGB") if mode == "RGB" else image.convert(mode)
    converted = ImageCms.applyTransform(unprofiled, transform)
    assert converted is not None
    return converted


@lru_cache(maxsize=16)
def _build_transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Build the transform from an embedded profile to sRGB; None where the profile is unusable or the transform changes nothing."""
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        mode = _PROFILE_MODES.get(source.profile.xcolor_space.strip())
        if mode is None:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if mode == "CMYK":
        return transform
    sample = _build_test_image(mode)
    converted = ImageCms.applyTransform(sample, transform)
    assert converted is not None
    difference = np.abs(np.asarray(converted, np.int16) - np.asarray(sample.convert("RGB"), np.int16))
    return None if difference.max() <= _MAX_SRGB_DIFFERENCE else transform


def _build_test_image(mode: str) -> Image.Image:
    """Build an image with levels from all over the colour space."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3))
