"""`generate --check`: the recorded result is computed again and compared, and nothing is written."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result as Outcome
from typer.testing import CliRunner

from lora_edit import pipeline
from lora_edit.cli.main import app
from lora_edit.reporting import SilentReporter
from lora_edit.reproduction import RECORD_KEY
from lora_edit.run import Run
from test_pipeline import make_source, settings_for


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    settings = settings_for(folder, make_source(folder), "training.motion_steps=1", "training.recolour=0")
    return pipeline.edit(settings, folder / "out.mp4", folder / "run", SilentReporter()).run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    """A copy of the run."""
    subprocess.run(["cp", "-r", str(finished), str(tmp_path / "run")], check=True)
    return Run(tmp_path / "run")


def read_files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def check(run: Run, *options: str) -> Outcome:
    return CliRunner().invoke(app, ["generate", str(run.folder), "--check", "--threads", "1", *options])


def change_record(run: Run, **changes: Any) -> None:
    record = run.read_manifest()[RECORD_KEY]
    run.update_manifest(**{RECORD_KEY: record | changes})


def test_an_unchanged_run_is_reproduced_and_not_written(run: Run, single_thread: None) -> None:
    before = read_files(run.folder)
    outcome = check(run)
    assert (outcome.exit_code, outcome.stdout) == (
        0,
        f"{run.folder}: the LoRA, the generated clip and all 7 frames are the recorded ones\n",
    )
    assert read_files(run.folder) == before


def test_json_says_what_differs(run: Run, single_thread: None) -> None:
    frames = run.read_manifest()[RECORD_KEY]["frames"]
    change_record(run, frames=[*frames[:4], "0" * 16, *frames[5:]])
    outcome = check(run, "--json")
    assert outcome.exit_code == 1
    assert json.loads(outcome.stdout) == {
        "run": str(run.folder),
        "equal": False,
        "num_frames": 7,
        "differences": ["1 of 7 frames differ, the first of them frame 4"],
        "environment_differences": [],
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"generated": "0"}, "the generated clip differs, before compositing"),
        ({"settings": "0"}, "the run's settings (edit.toml) are not those of the result"),
        ({"inputs": "0"}, "the stored input is not that of the result"),
        ({"loras_used": {"edit.safetensors": "0"}}, "the LoRA edit.safetensors is not that of the result"),
    ],
)
def test_the_first_stage_that_differs_is_named(run: Run, changes: dict[str, Any], words: str, single_thread: None) -> None:
    change_record(run, **changes)
    outcome = check(run)
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert outcome.stderr.splitlines()[-1] == f"error: {run.folder}: the result is not reproduced: {words}"


def test_another_environment_is_reported(run: Run, single_thread: None) -> None:
    """With the same bytes, that is a note."""
    environment = run.read_manifest()[RECORD_KEY]["environment"]
    change_record(run, environment=environment | {"torch": "1.0", "threads": "9"})
    outcome = check(run)
    assert outcome.exit_code == 0
    assert "note: threads is 1, and was 9, which may change the last bits of the result" in outcome.stderr
    assert "and was 1.0" in outcome.stderr


def test_a_result_of_another_seed_and_first_frame_is_reproduced(finished: Path, tmp_path: Path, single_thread: None) -> None:
    """The record holds what was asked for; the first result of a trained run is the run's own."""
    folder = finished.parent
    run = pipeline.create_run(Run(finished).read_settings(), tmp_path / "run")
    pipeline.generate(run.folder, SilentReporter(), seed=8, first_frame=folder / "first.png")
    assert run.read_manifest()[RECORD_KEY]["seed"] == 8
    assert check(run).exit_code == 0


def test_a_run_without_a_finished_result_is_an_input_error(finished: Path, tmp_path: Path) -> None:
    run = pipeline.create_run(Run(finished).read_settings(), tmp_path / "run")
    outcome = check(run)
    assert outcome.exit_code == 2 and "has no hashes of a finished result" in outcome.stderr


def test_check_takes_no_other_request(run: Run) -> None:
    outcome = check(run, "--seed", "3")
    assert outcome.exit_code == 2 and "--check takes no --seed" in outcome.stderr
