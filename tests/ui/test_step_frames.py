"""The frames and region steps without a browser: converted pictures, the automatic region, and malformed viewer data."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")

import gradio as gr

from lora_edit.errors import InputError
from lora_edit.ui.components import AppState
from lora_edit.ui.projects import Mark, Project, ProjectStore
from lora_edit.ui.step_frames import FramesStep
from lora_edit.ui.step_region import RegionStep
from ui.rendered import write


@pytest.fixture
def app_state(tmp_path: Path) -> AppState:
    return AppState(ProjectStore(tmp_path / "runs"))


def create_project_with_clip(app_state: AppState, folder: Path) -> tuple[Project, Path]:
    """Create a project with a clip; returns it and the path of the edited first frame."""
    source, edited = write(folder)
    project = app_state.store.create_project()
    project.update_state(clip=project.import_file(source))
    return project, edited


def build_step(step: Callable[[AppState], Any], app_state: AppState) -> Any:
    with gr.Blocks():
        return step(app_state)


def as_cmyk(picture: Image.Image) -> dict[str, Any]:
    return {"image": picture.convert("CMYK"), "suffix": ".jpg", "quality": 95}


def as_grey(picture: Image.Image) -> dict[str, Any]:
    return {"image": picture.convert("L"), "suffix": ".png"}


def as_deep_grey(picture: Image.Image) -> dict[str, Any]:
    levels = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    return {"image": Image.fromarray(levels), "suffix": ".png"}


def as_turned(picture: Image.Image) -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be displayed rotated by 90 degrees clockwise
    return {"image": picture.transpose(Image.Transpose.ROTATE_90), "suffix": ".jpg", "exif": exif, "quality": 95}


def as_double(picture: Image.Image) -> dict[str, Any]:
    return {"image": picture.resize((256, 192)), "suffix": ".png"}


def as_it_is(picture: Image.Image) -> dict[str, Any]:
    return {"image": picture, "suffix": ".png"}


@pytest.mark.parametrize(
    ("encode", "note"),
    [
        (as_cmyk, "The picture was converted: CMYK to RGB."),
        (as_grey, "The picture was converted: grey to RGB."),
        (as_deep_grey, "The picture was converted: grey to RGB, 16 bits to 8."),
        (as_turned, "The picture was converted: rotated upright by its EXIF orientation."),
        (as_double, "The picture was converted: resized from 256x192 to the source&#x27;s 128x96."),
        (as_it_is, ""),
    ],
)
def test_a_first_frame_in_another_format_is_converted_with_a_note(app_state: AppState, tmp_path: Path, encode: Any, note: str) -> None:
    project, edited = create_project_with_clip(app_state, tmp_path)
    project.update_state(marks=(Mark(kind="box", frame=0, x=0, y=0, width=128, height=96),))
    options = encode(Image.open(edited).convert("RGB"))
    file = tmp_path / f"first{options.pop('suffix')}"
    options.pop("image").save(file, **options)
    step = build_step(FramesStep, app_state)
    notes = step.import_first_frame(project.id, str(file))[step.notes]
    assert notes.count("The picture was converted") == bool(note)
    assert note in notes


def test_the_automatic_region_is_shown_before_training(app_state: AppState, tmp_path: Path) -> None:
    """Without marks: in the region step, and on frames that are not edited. The overlay darkens everything outside the region."""
    project, edited = create_project_with_clip(app_state, tmp_path)
    project.update_state(first_frame=project.import_file(edited))
    source = cv2.VideoCapture(str(tmp_path / "clip-0.mp4"))
    frames = [source.read()[1].astype(int) for _ in range(5)]
    region, later = build_step(RegionStep, app_state), build_step(FramesStep, app_state)
    for updates, view in ((region.show(project, 3), region.view), (later.show(project, 3), later.view)):
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(updates[view]["src"].partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
        assert picture[:, 100:].mean() < 0.8 * frames[3][:, 100:].mean(), "the background is outside the region"
        assert picture[40:56, 48:58].mean() > 0.9 * frames[3][40:56, 48:58].mean(), "the disc is inside the region"


MALFORMED = [
    None,
    [],
    "mark",
    {"kind": "star", "frame": 0},
    {"kind": "point", "frame": "first", "x": 1, "y": 1},
    {"kind": "point", "frame": 0, "x": float("nan"), "y": 1},
    {"kind": "point", "frame": -1, "x": 1, "y": 1},
    {"kind": "paint", "frame": 10**9, "width": 3, "stroke": [[1, 1], [2, 2]]},
    {"kind": "paint", "frame": 0, "width": 3, "stroke": [[1, 1]] * 5000},
    {"kind": "paint", "frame": 0, "width": 3, "stroke": [["a"]]},
    {"kind": "point", "frame": 0, "x": {"a": 1}, "y": 1},
]


@pytest.mark.parametrize("data", MALFORMED)
def test_malformed_marks_are_rejected(app_state: AppState, tmp_path: Path, data: Any) -> None:
    project, _ = create_project_with_clip(app_state, tmp_path)
    step = build_step(RegionStep, app_state)
    with pytest.raises(InputError, match=r"^this mark cannot be (read; draw it again|stored; draw it again, on one of the frames 0 to 4)$"):
        step.add_mark(project.id, "1", gr.EventData(None, data))
    assert project.read_state().marks == ()


@pytest.mark.parametrize("frame", [None, "3", -1, 1.5, float("nan"), [1]])
def test_malformed_frame_numbers_are_rejected(app_state: AppState, tmp_path: Path, frame: Any) -> None:
    project, _ = create_project_with_clip(app_state, tmp_path)
    step = build_step(RegionStep, app_state)
    for handler in (step.show_frame, step.play_frames):
        with pytest.raises(InputError, match=r"^this is not a frame of the clip"):
            handler(project.id, gr.EventData(None, {"frame": frame}))
