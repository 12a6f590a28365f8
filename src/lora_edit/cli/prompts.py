"""Parsing of points and boxes to prompts of a segmenter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_edit.errors import MaskError

if TYPE_CHECKING:
    import torch

    from lora_edit.masks.segmenter import Prompt

POINT_SYNTAX, BOX_SYNTAX = "X,Y[:FRAME][#NAME]", "X,Y,W,H[:FRAME][#NAME]"


def parse_coordinates(option: str, text: str, syntax: str, default_object: str) -> tuple[list[float], int | None, str]:
    """Parse `X,Y[:FRAME][#NAME]` or `X,Y,W,H[:FRAME][#NAME]`; `@FRAME` works like `:FRAME`.

    Returns the numbers, the frame (None without one) and the object name (`default_object` without one). `option` is the flag for the
    message. Raises `MaskError`.
    """
    position, _, object_name = text.partition("#")
    numbers, colon, frame = position.replace("@", ":").partition(":")
    try:
        values = [float(part) for part in numbers.split(",")]
        number = int(frame) if colon else None
    except ValueError as error:
        raise MaskError(f"{option} {text}: write {syntax}, pixels of the source, for instance {_get_example(syntax)}") from error
    if len(values) != syntax.partition("[")[0].count(",") + 1 or not all(map(math.isfinite, values)):
        raise MaskError(f"{option} {text}: write {syntax}, pixels of the source, for instance {_get_example(syntax)}")
    if number is not None and number < 0:
        raise MaskError(f"{option} {text}: frames count from 0; write {syntax}")
    if syntax == BOX_SYNTAX and min(values[2:]) <= 0:
        raise MaskError(f"{option} {text}: width and height must be positive numbers; write {syntax}")
    return values, number, object_name or default_object


def _get_example(syntax: str) -> str:
    return "320,180:12" if syntax == POINT_SYNTAX else "40,20,120,90:12"


@dataclass(frozen=True)
class ParsedPrompt:
    """The value of a `--box`, `--point` or `--not-point`: coordinates in source pixels, frame (None without one) and object name."""

    option: str
    coordinates: list[float]
    frame: int | None
    object_name: str


def parse_prompts(points: Sequence[str], not_points: Sequence[str], boxes: Sequence[str], default_object: str) -> list[ParsedPrompt]:
    """Parse all boxes, points and negative points. `default_object` names the object of those without a name. Raises `MaskError`."""
    options = [("--box", boxes), *pair_click_options(points, not_points)]
    return [
        ParsedPrompt(option, *parse_coordinates(option, text, BOX_SYNTAX if option == "--box" else POINT_SYNTAX, default_object))
        for option, texts in options
        for text in texts
    ]


def build_prompts(parsed_prompts: Sequence[ParsedPrompt]) -> list[Prompt]:
    """Convert parsed prompts to those of the segmenter."""
    from lora_edit.masks.boxes import KeyframeBox
    from lora_edit.masks.segmenter import Click
    from lora_edit.types import Box

    return [
        KeyframeBox(Box(*each.coordinates), each.frame, each.object_name)
        if each.option == "--box"
        else Click(each.coordinates[0], each.coordinates[1], each.option == "--point", each.frame or 0, each.object_name)
        for each in parsed_prompts
    ]


def pair_click_options(points: Sequence[str], not_points: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
    """Pair both click options with their values. Points on an object come first, as the first of them starts the object."""
    return [("--point", points), ("--not-point", not_points)]


def build_automatic_prompt(frame: torch.Tensor, object_name: str) -> Prompt:
    """Build a box around the salient object of the first frame `[H, W, 3]`. Raises `MaskError` without such an object or the network."""
    from lora_edit.masks.boxes import KeyframeBox
    from lora_edit.masks.saliency import find_salient_box, load_saliency_network

    network = load_saliency_network()
    if network is None:
        raise MaskError("--auto: the network U2-Net-p is missing; install it as docs/masks.md describes, or give --point or --box")
    box = find_salient_box(network, frame.numpy())
    if box is None:
        raise MaskError("--auto: no object stands out in the first frame; give --point or --box")
    return KeyframeBox(box, 0, object_name)
