"""Inputs and outputs that cannot do are told at once, in one line, with exit code 2; nothing is trained first and nothing is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from lora_edit import pipeline, results
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
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with `clip.mp4` of four frames and its edited first frame `first.png`."""
    monkeypatch.chdir(tmp_path)
    plain(tmp_path / "clip.mp4", 4)
    first = read_video(tmp_path / "clip.mp4").frames[0].numpy().copy()
    first[20:60, 20:80] = (200, 30, 30)
    Image.fromarray(first).save(tmp_path / "first.png")
    return tmp_path


def run(*arguments: str | Path) -> tuple[int, str, str]:
    outcome = CliRunner().invoke(app, [str(word) for word in arguments])
    return outcome.exit_code, outcome.stdout, outcome.stderr


def refused(*arguments: str | Path) -> str:
    """The one line that a refused command says."""
    code, _, err = run(*arguments)
    assert code == 2, err
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is a fault."""

    def never(*_: object) -> None:
        raise AssertionError("trained before the output was proven")

    monkeypatch.setattr(pipeline, "train_or_load_lora", never)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("output", ["R/result.mp4", "R/compare.mp4", "R/frames/a.mp4", "file/a.mp4", f"{'x' * 252}.mp4"])
def test_outputs_that_cannot_be_written(here: Path, output: str) -> None:
    (here / "file").touch()
    assert refused("edit", "clip.mp4", "--first-frame", "first.png", *BOX, "--run", "R", "--output", output, *FEW).startswith("error: ")


@pytest.mark.parametrize("output", [".", "", "..", "R/.."])
@pytest.mark.parametrize("verb", ["edit", "new", "preview"])
def test_outputs_without_a_name(here: Path, verb: str, output: str) -> None:
    assert "name" in refused(verb, "clip.mp4", "--first-frame", "first.png", *BOX, "--output", output)


@pytest.mark.parametrize("rate", ["0.0004", "inf", "nan", "0", "1e9", "25/0", "fast"])
def test_rates_that_are_none(here: Path, rate: str) -> None:
    assert "rate" in refused("preview", "clip.mp4", "--first-frame", "first.png", *BOX, "--output", "a.mp4", "--fps", rate).replace(
        "fps", "rate"
    )


@pytest.mark.parametrize(("rate", "exact"), [("23.976", "24000/1001"), ("30000/1001", "30000/1001"), ("12.5", "25/2")])
def test_rates_of_television(here: Path, rate: str, exact: str) -> None:
    code, _, err = run("preview", "clip.mp4", "--first-frame", "first.png", *BOX, "--output", "a.mp4", "--fps", rate)
    assert code == 0, err
    assert str(read_video(here / "a.mp4").fps) == exact
    assert to_exact_rate(30.0) == 30 and to_exact_rate(59.94) == to_exact_rate(60000 / 1001)


def test_pipes_are_refused_and_never_waited_for(here: Path) -> None:
    os.mkfifo(here / "pipe.mp4")
    assert "pipe" in refused("mask", "pipe.mp4", *BOX, "--output", "m")
    assert "pipe" in refused("preview", "clip.mp4", "--first-frame", "pipe.mp4", *BOX, "--output", "a.mp4")
    assert "pipe" in refused("preview", "clip.mp4", "--first-frame", "first.png", "--mask", "pipe.mp4", "--output", "a.mp4")


def test_names_that_are_no_text(here: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    (here / name).write_bytes((here / "clip.mp4").read_bytes())
    assert "UTF-8" in refused("new", name, "--first-frame", "first.png", *BOX, "--run", "R")
    assert not (here / "R").exists()


def test_a_typo_beside_an_existing_output(here: Path) -> None:
    (here / "m").mkdir()
    assert "no such file" in refused("mask", "typo.mp4", *BOX, "--output", "m", "--overwrite")


def test_a_colon_in_every_name(here: Path) -> None:
    (here / "clip.mp4").rename(here / "take:2.mp4")
    code, _, err = run("preview", "take:2.mp4", "--first-frame", "first.png", *BOX, "--output", "take:3.mp4")
    assert code == 0, err
    assert run("mask", "take:2.mp4", *BOX, "--output", "take:m.mp4")[0] == 0
    assert run("evaluate", "take:3.mp4", "--source", "take:2.mp4", "--mask", "take:m.mp4")[0] == 0


def test_what_a_result_leaves_out_is_a_note(here: Path) -> None:
    """Alpha in .mp4 is said; with a codec that holds it the run's lossless frames keep it too."""
    alpha = torch.full((4, 96, 160), 255, dtype=torch.uint8)
    alpha[:, 70:] = 100
    clip = read_video(here / "clip.mp4")
    write_video(here / "clear.mkv", Video(torch.from_numpy(np.stack(pictures(4))), clip.fps, clip.times, alpha), "ffv1")
    arguments = ("clear.mkv", "--first-frame", "first.png", *BOX)
    code, _, err = run("preview", *arguments, "--output", "a.mp4")
    assert code == 0 and "transparency is left out" in err
    code, _, err = run("edit", *arguments, "--output", "b.mkv", "--codec", "ffv1", *FEW)
    assert code == 0 and "transparency" not in err, err
    for result in ("b.mkv", "b.run/result"):
        kept = read_video(here / result).alpha
        assert kept is not None and torch.equal(kept, alpha)


def test_wide_frames_are_compared_one_above_the_other() -> None:
    left = torch.zeros(1, 4, 60, 3, dtype=torch.uint8)
    assert join_side_by_side(left, left).shape == (1, 4, 120, 3)
    assert join_side_by_side(left, left, 100).shape == (1, 8, 60, 3)
    large = torch.zeros(1, 60, 60, 3, dtype=torch.uint8)
    assert join_side_by_side(large, large, 100).shape == (1, 60, 30, 3)


def test_frames_that_no_h264_holds(tmp_path: Path) -> None:
    wide = make_clip(1, 2, 16400)
    with pytest.raises(VideoError, match="larger than"):
        verify_output_writable(tmp_path / "a.mp4", wide)
    assert list(tmp_path.iterdir()) == []


def test_own_places_of_a_run(tmp_path: Path) -> None:
    assert results.is_reserved_path(tmp_path / "R", tmp_path / "R" / "result.mp4")
    assert not results.is_reserved_path(tmp_path / "R", tmp_path / "R" / "samples" / "a.mp4")
    assert not results.is_reserved_path(tmp_path / "R", tmp_path / "a.mp4")


def test_a_full_disc_at_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own words name no disc; the error does, and nothing half stays."""

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


def test_a_tight_mask_is_edited_to_its_edge(here: Path) -> None:
    """The whole mask shows the first frame that was given, its rim and its thin parts included."""
    mask = np.zeros((96, 160), np.uint8)
    mask[20:60, 20:80] = mask[40, 80:150] = 255
    Image.fromarray(mask).save(here / "mask.png")
    first = np.array(Image.open(here / "first.png"))
    first[mask > 0] = (200, 30, 30)
    Image.fromarray(first).save(here / "first.png")
    code, _, err = run("preview", "clip.mp4", "--first-frame", "first.png", "--mask", "mask.png", "--mask-shape", "tight", "--output", "a")
    assert code == 0, err
    assert (np.array(Image.open(here / "a" / "00000.png"))[mask > 0] == (200, 30, 30)).all()


def test_interlaced_and_hdr_sources_say_so(here: Path) -> None:
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
    write_source(here / "fields.ts", pictures(4), options=options)
    code, _, err = run("preview", "fields.ts", "--first-frame", "first.png", *BOX, "--output", "a.mp4")
    assert code == 0 and "the source is interlaced" in err
