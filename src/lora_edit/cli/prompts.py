"""Points and boxes as people write them, to a segmenter's prompts; and the segmenter by its name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lora_edit.errors import MaskError

if TYPE_CHECKING:
    import torch

    from lora_edit.masks.segmenter import Prompt, Segmenter

POINT_SYNTAX, BOX_SYNTAX = "X,Y[:FRAME][#NAME]", "X,Y,W,H[:FRAME][#NAME]"


def parse_coordinates(option: str, text: str, syntax: str, default_object: str) -> tuple[list[float], int | None, str]:
    """The numbers, frame and object of `X,Y[:FRAME][#NAME]` or `X,Y,W,H[:FRAME][#NAME]`; `name` where none is written. Raises `MaskError`.

    `@FRAME` is understood too.
    """
    place, _, written = text.partition("#")
    numbers, colon, frame = place.replace("@", ":").partition(":")
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
    return values, number, written or default_object


def _get_example(syntax: str) -> str:
    return "320,180:12" if syntax == POINT_SYNTAX else "40,20,120,90:12"


def parse_prompts(points: Sequence[str], not_points: Sequence[str], boxes: Sequence[str], default_object: str) -> list[Prompt]:
    """Every `--box`, `--point` and `--not-point`; `name` is the object of those that name none. Raises `MaskError`."""
    places = [("--box", *parse_coordinates("--box", text, BOX_SYNTAX, default_object)) for text in boxes]
    places += [
        (option, *parse_coordinates(option, text, POINT_SYNTAX, default_object))
        for option, texts in pair_click_options(points, not_points)
        for text in texts
    ]
    # Heavy, and of no use to what cannot be read.
    from lora_edit.masks.boxes import KeyframeBox
    from lora_edit.masks.segmenter import Click
    from lora_edit.types import Box

    def prompt(option: str, values: list[float], frame: int | None, owner: str) -> Prompt:
        if option == "--box":
            return KeyframeBox(Box(*values), frame, owner)
        return Click(values[0], values[1], option == "--point", frame or 0, owner)

    return [prompt(*place) for place in places]


def pair_click_options(points: Sequence[str], not_points: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
    """The two options of clicks with what was given for each: those on an object first, as the first of them says what it is."""
    return [("--point", points), ("--not-point", not_points)]


def build_automatic_prompt(frame: torch.Tensor, object_name: str) -> Prompt:
    """A box around what stands out in the first frame `[H, W, 3]`. Raises `MaskError` where nothing does or the network is missing."""
    from lora_edit.masks.boxes import KeyframeBox
    from lora_edit.masks.saliency import find_salient_box, load_saliency_network

    net = load_saliency_network()
    if net is None:
        raise MaskError("--auto: needs the network U2-Net-p; docs/masks.md says how to install it, or give --point or --box")
    box = find_salient_box(net, frame.numpy())
    if box is None:
        raise MaskError("--auto: nothing stands out in the first frame; give --point or --box")
    return KeyframeBox(box, 0, object_name)


def load_segmenter(text: str) -> Segmenter:
    """The segmenter of `embedded` or `sam2:FOLDER`. Raises `MaskError` for another name, `ModelError` for another model."""
    kind, _, place = text.partition(":")
    if kind == "embedded" and not place:
        from lora_edit.masks.embedded_segmenter import EmbeddedSegmenter
        from lora_edit.masks.saliency import load_saliency_network

        return EmbeddedSegmenter(load_saliency_network())
    if kind == "sam2" and place:
        from lora_edit.masks.sam2 import Sam2Segmenter

        return Sam2Segmenter(str(Path(place).absolute()) if Path(place).exists() else place)
    raise MaskError(f"--segmenter {text}: no such segmenter; write embedded, or sam2:FOLDER with a downloaded SAM 2 model")
