"""Damaged files of a run folder: each is named, and nothing else happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_edit.captions import lacks_captions
from lora_edit.config import resolve_settings
from lora_edit.errors import InputError, RunError
from lora_edit.inputs import Clip, load_inputs, read_run_frame_rate, store_inputs
from lora_edit.run import Run, make_run
from lora_edit.takes import list_takes
from lora_edit.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from lora_edit.types import Chapter, ColourTags, EditMask, Video


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of three frames with a reference, that has not been trained."""
    frames = torch.randint(0, 256, (3, 8, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    video = Video(frames, Fraction(25), (0.0, 0.04, 0.08), tags=ColourTags(1, 1, 1, 1, full=False), matching_pix_fmt="yuv420p")
    video = replace(video, chapters=(Chapter("a", 0.0, 0.08),))
    mask = EditMask(torch.ones(3, 8, 12, dtype=torch.bool))
    settings = resolve_settings({"input": {"source": "a.mp4", "first_frame": "a.png"}})
    run = make_run(tmp_path / "run", settings)
    store_inputs(Clip(video, mask, frames[0], {1: frames[1]}, {}, ("a note",)), run, settings)
    return run


def test_the_input_is_loaded_as_it_was_stored(run: Run) -> None:
    clip = load_inputs(run, discard_damaged=False)
    assert clip.video.times == (0.0, 0.04, 0.08) and clip.video.tags == ColourTags(1, 1, 1, 1, full=False)
    assert clip.video.chapters == (Chapter("a", 0.0, 0.08),) and clip.notes == ("a note",) and list(clip.references) == [1]


RECORDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no object": lambda record: [record],
    "no rate": lambda record: {key: value for key, value in record.items() if key != "fps"},
    "rate of zero": lambda record: record | {"fps": "0"},
    "rate by zero": lambda record: record | {"fps": "1/0"},
    "fewer times": lambda record: record | {"times": [0.0]},
    "falling times": lambda record: record | {"times": [0.0, 0.2, 0.1]},
    "infinite time": lambda record: record | {"times": [0.0, 1.0, float("inf")]},
    "text for a number": lambda record: record | {"start_time": "x"},
    "tags without a field": lambda record: record | {"tags": {"matrix": 1}},
    "unknown pixel format": lambda record: record | {"kept_format": "yuv999"},
    "unknown field order": lambda record: record | {"field_order": "sideways"},
    "chapter without an end": lambda record: record | {"chapters": [{"title": "a", "begin": 0}]},
    "notes of numbers": lambda record: record | {"notes": [1]},
    "no shift": lambda record: record | {"shifts": []},
}


@pytest.mark.parametrize("spoil", RECORDS.values(), ids=RECORDS)
def test_a_damaged_record_of_the_clip_is_named(run: Run, spoil: Callable[[dict[str, Any]], Any]) -> None:
    file = run.folder / "clip.json"
    file.write_text(json.dumps(spoil(json.loads(file.read_text("utf-8")))))
    with pytest.raises(RunError, match=r"clip\.json: .*; put back a copy of this file"):
        load_inputs(run, discard_damaged=False)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"null"])
def test_damaged_json_files_are_named(run: Run, content: bytes) -> None:
    files: dict[str, Callable[[], object]] = {
        "clip.json": lambda: load_inputs(run, discard_damaged=False),
        "manifest.json": run.read_manifest,
        "captions.json": lambda: lacks_captions(run.folder / "captions.json"),
    }
    for name, read in files.items():
        (run.folder / name).write_bytes(content)
        with pytest.raises(RunError, match=f"{name}: "):
            read()
    assert read_run_frame_rate(run.folder / "frames") is None


def test_damaged_lists_of_takes_are_named(run: Run) -> None:
    for takes in (1, [1], [{"name": "a"}], [{"name": 1, "file": [], "picture": "", "title": "", "result_hash": ""}]):
        run.update_manifest(takes=takes)
        with pytest.raises(RunError, match=r"manifest\.json: takes: "):
            list_takes(run)


def test_pictures_of_another_size_or_name_are_named(run: Run) -> None:
    """Files that were swapped for others."""
    folder = run.folder / "references"
    (folder / "reference_x.png").write_bytes((folder / "first_frame.png").read_bytes())
    with pytest.raises(RunError, match=r"reference_x\.png: is no edited frame"):
        load_inputs(run, discard_damaged=False)
    (folder / "reference_x.png").unlink()
    from PIL import Image

    Image.new("RGB", (4, 4)).save(folder / "reference_00001.png")
    with pytest.raises(RunError, match=r"reference_00001\.png: does not have the size"):
        load_inputs(run, discard_damaged=False)
    (folder / "reference_00001.png").unlink()
    (run.folder / "masks" / "00002.png").unlink()
    with pytest.raises(RunError, match=r"masks: does not fit"):
        load_inputs(run, discard_damaged=False)
    (run.folder / "masks" / "00001.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match="masks"):
        load_inputs(run, discard_damaged=False)


def test_a_damaged_checkpoint_is_skipped(tmp_path: Path) -> None:
    """Every kind of damage: cut off, other bytes, another file, a folder. An intact one with other tensors is an error."""
    parameters = {"a": torch.nn.Parameter(torch.zeros(2, 3))}
    optimiser = torch.optim.AdamW(parameters.values())
    path = tmp_path / "training.pt"
    save_checkpoint(path, parameters, optimiser, Progress([[0.5]], [[]]), ["key"])
    data = path.read_bytes()
    assert load_checkpoint([path], parameters, optimiser, ["key"]).losses == [[0.5]]
    others = {"a": torch.nn.Parameter(torch.zeros(5))}
    notes: list[str] = []
    torch.save([1], tmp_path / "list.pt")
    torch.save({"keys": ["key"], "parameters": [1]}, tmp_path / "parameters.pt")
    for content in (data[:100], b"", b"x" * 500, (tmp_path / "list.pt").read_bytes(), (tmp_path / "parameters.pt").read_bytes()):
        path.write_bytes(content)
        assert load_checkpoint([path], parameters, optimiser, ["key"], notes.append) == Progress()
    for expected in (others, {"b": others["a"]}):
        path.write_bytes(data)
        with pytest.raises(RunError, match=r"training\.pt: the state of the training does not fit .*; remove this file"):
            load_checkpoint([path], expected, optimiser, ["key"])
    path.unlink()
    path.mkdir()
    assert load_checkpoint([path], parameters, optimiser, ["key"], notes.append) == Progress()
    assert notes == [f"{path}: the checkpoint is damaged and is not used; training continues from an earlier state"] * 6
