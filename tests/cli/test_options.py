"""Parsing of boxes, frames, LoRAs and lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_edit.cli import user_study
from lora_edit.cli.inspect_commands import LEARNED_METRICS, METRIC_LIST, METRICS, parse_metrics
from lora_edit.cli.options import (
    CodecName,
    MaskShapeName,
    RegionShape,
    parse_box,
    parse_boxes,
    parse_keyframe,
    parse_keyframes,
    parse_loras,
)
from lora_edit.cli.resolve import choose_run_folder
from lora_edit.config import KeyBox
from lora_edit.errors import MaskError, SettingsError
from lora_edit.masks.settings import MaskShape
from lora_edit.masks.settings import RegionShape as RegionShapes
from lora_edit.studies.users import answer_key
from lora_edit.video.formats import CODECS, FORMATS
from lora_edit.video.settings import Codec


def test_parse_box() -> None:
    assert parse_box("1,2.5,30,40") == {"x": 1, "y": 2.5, "width": 30, "height": 40}
    assert parse_box("-1, 2, 30, 40:12")["frame"] == 12
    assert KeyBox.model_validate(parse_box("1,2,3,4:0")).frame == 0
    assert KeyBox.model_validate(parse_box("1,2,3,4@7#hat")).object == "hat"


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,3,4:", "1,2,3,4:x", "1,2,3,4:-1", "1,2,0,4", "1,2,nan,4", "1,2,inf,4"]
)
def test_parse_box_rejects_invalid_text(text: str) -> None:
    with pytest.raises(MaskError, match="--box"):
        parse_box(text)


def test_parse_boxes_rejects_two_boxes_at_one_frame() -> None:
    assert len(parse_boxes(["1,2,3,4", "5,6,7,8", "1,2,3,4:1", "1,2,3,4:2"])) == 4
    with pytest.raises(MaskError, match="frame 1"):
        parse_boxes(["1,2,3,4:1", "5,6,7,8:1"])
    assert len(parse_boxes(["1,2,3,4:1#cup", "5,6,7,8:1#hat"])) == 2


def test_parse_keyframe() -> None:
    assert parse_keyframe("--anchor", "12=a=b.png") == (12, Path("a=b.png"))
    assert parse_keyframes("--anchor", ["3=x.png"]) == [{"frame": 3, "image": str(Path("x.png").absolute())}]


@pytest.mark.parametrize("text", ["", "x.png", "=x.png", "3=", "-3=x.png", "3.5=x.png"])
def test_parse_keyframe_rejects_invalid_text(text: str) -> None:
    with pytest.raises(SettingsError, match="--anchor"):
        parse_keyframe("--anchor", text)


def test_parse_keyframes_rejects_repeated_frame() -> None:
    with pytest.raises(SettingsError, match="frame 3 is given twice"):
        parse_keyframes("--reference", ["3=x.png", "3=y.png"])


def test_parse_loras() -> None:
    here = Path.cwd()
    assert parse_loras(["a.safetensors", "b/c.safetensors:0.8"]) == [(here / "a.safetensors", 1.0), (here / "b/c.safetensors", 0.8)]
    assert parse_loras(["a:b.safetensors"]) == [(here / "a:b.safetensors", 1.0)]
    for text in ("a.safetensors:5", "a.safetensors:nan"):
        with pytest.raises(SettingsError, match="--lora"):
            parse_loras([text])


def test_parse_metrics() -> None:
    assert parse_metrics(None) == METRICS
    assert parse_metrics(METRIC_LIST) == (*METRICS, *LEARNED_METRICS)
    assert parse_metrics("flicker, leak") == ("flicker", "leak")
    for text in ("", "fvd"):
        with pytest.raises(SettingsError, match="--metrics"):
            parse_metrics(text)


def test_run_folder_is_beside_output() -> None:
    assert choose_run_folder(None, Path("out/cat.mp4")) == Path("out/cat.run")
    assert choose_run_folder(None, Path("frames")) == Path("frames.run")
    assert choose_run_folder(Path("kept"), Path("out/cat.mp4")) == Path("kept")


def test_choices_match_settings() -> None:
    assert {each.value for each in MaskShapeName} == set(MaskShape.__args__)  # type: ignore[attr-defined]
    assert {each.value for each in RegionShape} == set(RegionShapes.__args__)  # type: ignore[attr-defined]
    assert {each.value for each in CodecName} == set(Codec.__args__)  # type: ignore[attr-defined]


def test_every_format_has_codecs() -> None:
    assert list(CODECS) == list(FORMATS)


def test_key_file_matches_user_study() -> None:
    assert user_study.KEY_FILE == answer_key.KEY_FILE
