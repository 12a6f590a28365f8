"""Invalid inputs and outputs fail at once with one line and exit code 2, before any training and without data loss."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from lora_edit import results, session
from lora_edit.cli.main import app
from lora_edit.errors import VideoError
from lora_edit.training import checkpoint
from lora_edit.types import Video
from lora_edit.video.read import read_video, to_exact_rate
from lora_edit.video.sheet import join_side_by_side
from lora_edit.video.write import verify_output_writable, write_video
from video.clips import make_clip
from video.sources import pictures, plain, write_source

BOX = ("--box", "20,20,60,40")
FEW = ("--set", "training.motion_steps=1", "--set", "generation.steps=1", "--set", "masks.check=false")


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with `clip.mp4` of four frames and its edited first frame `first.png`."""
    monkeypatch.chdir(tmp_path)
    plain(tmp_path / "clip.mp4", 4)
    first = read_video(tmp_path / "clip.mp4").frames[0].numpy().copy()
    first[20:60, 20:80] = (200, 30, 30)
    Image.fromarray(first).save(tmp_path / "first.png")
    return tmp_path


def run(*arguments: str | Path) -> tuple[int, str, str]:
    outcome = CliRunner().invoke(app, [str(word) for word in arguments])
    return outcome.exit_code, outcome.stdout, outcome.stderr


def get_error_line(*arguments: str | Path) -> str:
    """Return the only line of a rejected command."""
    code, _, err = run(*arguments)
    assert code == 2, err
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail on training."""

    def never(*_: object) -> None:
        raise AssertionError("trained before checking the output")

    monkeypatch.setattr(session, "train_or_load_lora", never)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("output", ["R/result.mp4", "R/compare.mp4", "R/frames/a.mp4", "file/a.mp4", f"{'x' * 252}.mp4"])
def test_unwritable_outputs_are_rejected(working_folder: Path, output: str) -> None:
    (working_folder / "file").touch()
    assert get_error_line("edit", "clip.mp4", "--first-frame", "first.png", *BOX, "--run", "R", "--output", output, *FEW).startswith(
        "error: "
    )


@pytest.mark.parametrize("output", [".", "", "..", "R/.."])
@pytest.mark.parametrize("verb", ["edit", "new", "preview"])
def test_outputs_without_name_are_rejected(working_folder: Path, verb: str, output: str) -> None:
    assert "name" in get_error_line(verb, "clip.mp4", "--first-frame", "first.png", *BOX, "--output", output)


@pytest.mark.parametrize("rate", ["0.0004", "inf", "nan", "0", "1e9", "25/0", "fast"])
def test_invalid_frame_rates_are_rejected(working_folder: Path, rate: str) -> None:
    assert "rate" in get_error_line("preview", "clip.mp4", "--first-frame", "first.png", *BOX, "--output", "a.mp4", "--fps", rate).replace(
        "fps", "rate"
    )


@pytest.mark.parametrize(("rate", "exact"), [("23.976", "24000/1001"), ("30000/1001", "30000/1001"), ("12.5", "25/2")])
def test_frame_rates_are_parsed_exactly(working_folder: Path, rate: str, exact: str) -> None:
    code, _, err = run("preview", "clip.mp4", "--first-frame", "first.png", *BOX, "--output", "a.mp4", "--fps", rate)
    assert code == 0, err
    assert str(read_video(working_folder / "a.mp4").fps) == exact
    assert to_exact_rate(30.0) == 30 and to_exact_rate(59.94) == to_exact_rate(60000 / 1001)


def test_pipes_are_rejected_without_blocking(working_folder: Path) -> None:
    os.mkfifo(working_folder / "pipe.mp4")
    assert "pipe" in get_error_line("mask", "pipe.mp4", *BOX, "--output", "m")
    assert "pipe" in get_error_line("preview", "clip.mp4", "--first-frame", "pipe.mp4", *BOX, "--output", "a.mp4")
    assert "pipe" in get_error_line("preview", "clip.mp4", "--first-frame", "first.png", "--mask", "pipe.mp4", "--output", "a.mp4")


def test_names_must_be_utf8(working_folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    (working_folder / name).write_bytes((working_folder / "clip.mp4").read_bytes())
    assert "UTF-8" in get_error_line("new", name, "--first-frame", "first.png", *BOX, "--run", "R")
    assert not (working_folder / "R").exists()


def test_missing_source_is_reported_before_existing_output(working_folder: Path) -> None:
    (working_folder / "m").mkdir()
    assert "no such file" in get_error_line("mask", "typo.mp4", *BOX, "--output", "m", "--overwrite")


def test_names_may_contain_colons(working_folder: Path) -> None:
    (working_folder / "clip.mp4").rename(working_folder / "take:2.mp4")
    code, _, err = run("preview", "take:2.mp4", "--first-frame", "first.png", *BOX, "--output", "take:3.mp4")
    assert code == 0, err
    assert run("mask", "take:2.mp4", *BOX, "--output", "take:m.mp4")[0] == 0
    assert run("evaluate", "take:3.mp4", "--source", "take:2.mp4", "--mask", "take:m.mp4")[0] == 0


def test_losses_of_the_result_are_noted(working_folder: Path) -> None:
    """Losing alpha in .mp4 is noted; a codec with alpha preserves it, as do the lossless frames of the run."""
    alpha = torch.full((4, 96, 160), 255, dtype=torch.uint8)
    alpha[:, 70:] = 100
    clip = read_video(working_folder / "clip.mp4")
    write_video(working_folder / "clear.mkv", Video(torch.from_numpy(np.stack(pictures(4))), clip.fps, clip.times, alpha), "ffv1")
    arguments = ("clear.mkv", "--first-frame", "first.png", *BOX)
    code, _, err = run("preview", *arguments, "--output", "a.mp4")
    assert code == 0 and "transparency is left out" in err
    code, _, err = run("edit", *arguments, "--output", "b.mkv", "--codec", "ffv1", *FEW)
    assert code == 0 and "transparency" not in err, err
    for result in ("b.mkv", "b.run/result"):
        kept = read_video(working_folder / result).alpha
        assert kept is not None and torch.equal(kept, alpha)


def test_wide_frames_are_joined_vertically() -> None:
    left = torch.zeros(1, 4, 60, 3, dtype=torch.uint8)
    assert join_side_by_side(left, left).shape == (1, 4, 120, 3)
    assert join_side_by_side(left, left, 100).shape == (1, 8, 60, 3)
    large = torch.zeros(1, 60, 60, 3, dtype=torch.uint8)
    assert join_side_by_side(large, large, 100).shape == (1, 60, 30, 3)


def test_frames_too_large_for_h264_are_rejected(tmp_path: Path) -> None:
    wide = make_clip(1, 2, 16400)
    with pytest.raises(VideoError, match="larger than"):
        verify_output_writable(tmp_path / "a.mp4", wide)
    assert list(tmp_path.iterdir()) == []


def test_reserved_paths_of_a_run(tmp_path: Path) -> None:
    assert results.is_reserved_path(tmp_path / "R", tmp_path / "R" / "result.mp4")
    assert not results.is_reserved_path(tmp_path / "R", tmp_path / "R" / "samples" / "a.mp4")
    assert not results.is_reserved_path(tmp_path / "R", tmp_path / "a.mp4")


def test_full_disk_while_saving_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the full disk, unlike that of PyTorch, and no partial file remains."""

    class Full:
        def __init__(self, file: object) -> None:
            self.fault: OSError | None = None

        def write(self, data: bytes) -> int:
            self.fault = OSError(errno.ENOSPC, "No space left on device")
            raise self.fault

    monkeypatch.setattr(checkpoint, "_ErrorRecordingFile", Full)
    weight = torch.nn.Parameter(torch.zeros(4))
    with pytest.raises(OSError, match="No space") as caught:
        checkpoint.save_checkpoint(tmp_path / "a.pt", {"w": weight}, torch.optim.SGD([weight]), checkpoint.Progress(), ["k"])
    assert caught.value.errno == errno.ENOSPC and list(tmp_path.iterdir()) == []


def test_tight_mask_is_edited_up_to_its_edge(working_folder: Path) -> None:
    """The whole mask shows the given first frame, including its edge and thin parts."""
    mask = np.zeros((96, 160), np.uint8)
    mask[20:60, 20:80] = mask[40, 80:150] = 255
    Image.fromarray(mask).save(working_folder / "mask.png")
    first = np.array(Image.open(working_folder / "first.png"))
    first[mask > 0] = (200, 30, 30)
    Image.fromarray(first).save(working_folder / "first.png")
    code, _, err = run("preview", "clip.mp4", "--first-frame", "first.png", "--mask", "mask.png", "--mask-shape", "tight", "--output", "a")
    assert code == 0, err
    assert (np.array(Image.open(working_folder / "a" / "00000.png"))[mask > 0] == (200, 30, 30)).all()


def test_interlaced_sources_are_noted(working_folder: Path) -> None:
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
    write_source(working_folder / "fields.ts", pictures(4), options=options)
    code, _, err = run("preview", "fields.ts", "--first-frame", "first.png", *BOX, "--output", "a.mp4")
    assert code == 0 and "the source is interlaced" in err
