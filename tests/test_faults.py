"""Faults in the middle of an edit: failed writes, values that are not finite, damaged files. The edit resumes to the same bytes."""

from __future__ import annotations

import errno
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result as Outcome
from typer.testing import CliRunner

from lora_edit import atomic_files, pipeline
from lora_edit.atomic_files import build_partial_path
from lora_edit.cli.main import app
from lora_edit.config import EditSettings
from lora_edit.errors import InputError, ModelError, NonFiniteError, RunError, TrainingDivergedError, VideoError, is_out_of_memory
from lora_edit.models.families.base import TransformerFamily
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.reporting import SilentReporter
from lora_edit.run import Run
from lora_edit.takes import list_takes
from lora_edit.training import checkpoint
from lora_edit.types import hash_content
from lora_edit.video import decode
from lora_edit.video.png_frames import load_frames
from lora_edit.video.read import read_video
from source_tree import ROOT
from test_pipeline import make_source, settings_for

ASSIGNMENTS = (
    "training.checkpoint_every=1", "training.recolour=0", "video.codec=ffv1", "method.hint=none", "compositing.detail=false",
    "masks.check=false",
)  # fmt: skip


class Recorder(SilentReporter):
    """A reporter that records stages and notes."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Record the stage."""
        self.stages.append(stage)

    def note(self, text: str) -> None:
        """Record the note."""
        self.notes.append(text)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[EditSettings, Path]:
    """An undisturbed edit: its settings and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    settings = settings_for(folder, make_source(folder), *ASSIGNMENTS)
    pipeline.edit(settings, folder / "out.mkv", folder / "run", SilentReporter())
    return settings, folder


@pytest.fixture
def run(whole: tuple[EditSettings, Path], tmp_path: Path) -> Run:
    """A copy of the undisturbed run."""
    subprocess.run(["cp", "-r", str(whole[1] / "run"), str(tmp_path / "run")], check=True)
    return Run(tmp_path / "run")


@contextmanager
def fail_write(number: int) -> Iterator[list[Path]]:
    """Let the file with this number, from 1, fail as on a full disk when its content is flushed. Yields the list of the files flushed."""
    writes: list[Path] = []
    flush = atomic_files._flush

    def flush_or_fail(file: Path) -> None:
        writes.append(file)
        if len(writes) == number:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic_files, "_flush", flush_or_fail)
        yield writes


def import_benchmark() -> Any:
    """Import benchmarks/faults.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("faults")


def find_incomplete_files(folder: Path) -> list[str]:
    return [text for text in import_benchmark().check_complete(folder) if not text.startswith("out.mkv")]


def find_temporary_files(folder: Path) -> list[Path]:
    return list(folder.rglob("*.partial*"))


def assert_same_result(folder: Path, whole_folder: Path) -> None:
    """The LoRA and the result frames are byte-identical."""
    for name in ("lora/edit.safetensors", *(f"result/{number:05d}.png" for number in range(7))):
        assert (folder / "run" / name).read_bytes() == (whole_folder / "run" / name).read_bytes(), name


def test_every_write_of_the_input_may_fail(whole: tuple[EditSettings, Path], tmp_path: Path) -> None:
    """Each time in a new folder: nothing incomplete and nothing temporary stays, and the next call stores the same input."""
    settings, clip, number = whole[0], pipeline.check(whole[0]), 1
    while True:
        folder = tmp_path / str(number)
        with fail_write(number) as writes, suppress(OSError, InputError):
            pipeline.create_run(settings, folder, clip=clip)
        if len(writes) < number:
            break
        assert not find_temporary_files(tmp_path) and not find_incomplete_files(folder), number
        pipeline.create_run(settings, folder, clip=clip)
        assert Run(folder).read_manifest()["input_hash"] == Run(whole[1] / "run").read_manifest()["input_hash"]
        number += 1
    assert number > 10


@pytest.mark.slow
def test_every_write_of_an_edit_may_fail(whole: tuple[EditSettings, Path], tmp_path: Path, single_thread: None) -> None:
    """One after the other, resumed each time: no finished stage runs again, and the result is that of an undisturbed edit."""
    settings, whole_folder = whole
    (tmp_path / "edit").mkdir()
    number, trained, generated, overwrite = 1, False, False, False
    while True:
        reporter, failed = Recorder(), False
        with fail_write(number) as writes:
            try:
                pipeline.edit(settings, tmp_path / "edit" / "out.mkv", tmp_path / "edit" / "run", reporter, overwrite)
            except (OSError, InputError) as error:
                # The output stands, and the record that it belongs to this run failed.
                failed, overwrite = True, "exists" in str(error)
        assert not (trained and "motion" in reporter.stages), f"trained again at write {number}"
        assert not (generated and "generate" in reporter.stages), f"sampled again at write {number}"
        if not failed and len(writes) < number:
            break
        assert not find_temporary_files(tmp_path) and not find_incomplete_files(tmp_path / "edit"), number
        trained = "training_key" in Run(tmp_path / "edit" / "run").read_manifest()
        generated = any((tmp_path / "edit" / "run" / "cache").glob("*.safetensors"))
        number += 0 if overwrite else 1
    assert number > 20
    assert_same_result(tmp_path / "edit", whole_folder)
    assert len(list_takes(Run(tmp_path / "edit" / "run"))) == 1


def invoke(*arguments: str) -> Outcome:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_a_full_disk_and_memory_end_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """With exit code 2 and what to do."""

    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "load_inputs", fail)
    outcome = invoke("generate", str(run.folder))
    assert outcome.exit_code == 2
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("error: ") and ("run the same command again" in line or "choose a writable folder" in line)


def test_errors_of_the_input_are_no_errors_of_memory() -> None:
    assert not is_out_of_memory(ModelError("clip.mp4: not enough memory in its name")) and not is_out_of_memory(ValueError("bad"))


def test_a_clip_too_large_for_memory_is_not_called_damaged(whole: tuple[EditSettings, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg reports that its threads cannot start as a resource that is unavailable."""

    def fail(packet: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(decode, "build_decoder", lambda stream: fail)
    with pytest.raises(MemoryError, match="memory ran out in decoding"):
        read_video(whole[1] / "source.mkv")


def test_a_result_is_listed_when_all_its_files_stand(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the report, the last file, leaves the list as it was."""
    before = list_takes(run)

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pipeline.results, "write_report", fail)
    with pytest.raises(OSError, match="No space"):
        pipeline.generate(run.folder, SilentReporter(), seed=3)
    assert list_takes(run) == before


def test_an_interrupted_output_is_replaced_by_the_resumed_edit_alone(
    whole: tuple[EditSettings, Path], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `--overwrite`; a file of the user's in its place is not."""
    output = tmp_path / "out.mkv"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.results, "write_report", lambda *arguments: os.kill(os.getpid(), 0) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pipeline.edit(whole[0], output, run.folder, SilentReporter())
    reporter = Recorder()
    pipeline.edit(whole[0], output, run.folder, reporter)
    assert "generate" not in reporter.stages
    with pytest.raises(VideoError, match="exists"):
        pipeline.edit(whole[0], output, run.folder, SilentReporter())


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(
    whole: tuple[EditSettings, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bad step is neither in the checkpoint nor in a LoRA, and the message says what to do."""
    predict, calls = WanFamily.predict_velocity, []

    def predicted(family: WanFamily, *arguments: Any) -> torch.Tensor:
        calls.append(1)
        return predict(family, *arguments) * (float("nan") if len(calls) == 3 else 1)

    folder = tmp_path / "run"
    pipeline.create_run(whole[0], folder)
    with monkeypatch.context() as patch:
        patch.setattr(WanFamily, "predict_velocity", predicted)
        with pytest.raises(TrainingDivergedError, match=r"nan.*at step 3; the last checkpoint is kept; lower training.learning_rate"):
            pipeline.train(folder, SilentReporter())
    state = torch.load(Run(folder).checkpoint_file(), weights_only=True)
    assert len(state["losses"][0]) == 2 and all(bool(value.isfinite().all()) for value in state["parameters"].values())
    assert not Run(folder).list_lora_files()
    pipeline.train(folder, SilentReporter())
    assert Run(folder).lora_file().read_bytes() == Run(whole[1] / "run").lora_file().read_bytes()


def test_parameters_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    good, bad = (torch.nn.Parameter(torch.tensor([value])) for value in (1.0, float("inf")))
    for parameter in (good, bad):
        optimiser = torch.optim.AdamW([parameter])
        if parameter is bad:
            with pytest.raises(TrainingDivergedError, match="not finite after step 0"):
                checkpoint.save_checkpoint(tmp_path / "t.pt", {"a": parameter}, optimiser, checkpoint.Progress(), ["k"])
        else:
            checkpoint.save_checkpoint(tmp_path / "t.pt", {"a": parameter}, optimiser, checkpoint.Progress(), ["k"])
    assert torch.load(tmp_path / "t.pt", weights_only=True)["parameters"]["a"].item() == 1


def test_decoded_frames_that_are_not_finite_are_never_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = TransformerFamily.decode
    monkeypatch.setattr(TransformerFamily, "decode", lambda family, latents: decode(family, latents) * float("nan"))
    before = set(run.folder.rglob("*.mkv")) | set((run.folder / "cache").glob("*"))
    with pytest.raises(NonFiniteError, match="decoded frames of window 1 of 1 are not finite; check"):
        pipeline.generate(run.folder, SilentReporter(), seed=3)
    assert set(run.folder.rglob("*.mkv")) | set((run.folder / "cache").glob("*")) == before


def test_memory_that_runs_out_in_decoding_repeats_the_decoding_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In tiles; the sampling does not run again."""
    decode, predict = TransformerFamily.decode, WanFamily.predict_velocity
    tiled, sampled = list[bool](), list[int]()

    def decoded(family: TransformerFamily, latents: torch.Tensor) -> torch.Tensor:
        tiled.append(family.device_manager.tile_decoding)
        if not tiled[-1]:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return decode(family, latents)

    def predicted(family: WanFamily, *arguments: Any) -> torch.Tensor:
        sampled.append(1)
        return predict(family, *arguments)

    monkeypatch.setattr(TransformerFamily, "decode", decoded)
    monkeypatch.setattr(WanFamily, "predict_velocity", predicted)
    reporter = Recorder()
    pipeline.generate(run.folder, reporter, seed=3)
    assert tiled == [False, True]
    assert len(sampled) == run.read_settings().generation.steps
    assert any("decoded in overlapping tiles" in note for note in reporter.notes)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "one byte": lambda content: content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 255]) + content[len(content) // 2 + 1 :],
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_recognised(tmp_path: Path, damage: str) -> None:
    """Training then continues from the state before it."""
    parameter = torch.nn.Parameter(torch.arange(4096.0))
    optimiser, notes, keys = torch.optim.AdamW([parameter]), [], ["a", "b"]
    paths = [tmp_path / "training.pt", tmp_path / "training-motion.pt"]
    checkpoint.save_checkpoint(paths[0], {"p": parameter}, optimiser, checkpoint.Progress([[1.0], [2.0]], [[], []]), keys)
    checkpoint.save_checkpoint(paths[1], {"p": parameter}, optimiser, checkpoint.Progress([[1.0]], [[]]), keys[:1])
    paths[0].write_bytes(DAMAGES[damage](paths[0].read_bytes()))
    progress = checkpoint.load_checkpoint(paths, {"p": parameter}, optimiser, keys, notes.append)
    assert progress.losses == [[1.0]]
    assert len(notes) == 1 and "training.pt: the checkpoint is damaged" in notes[0]


@pytest.mark.parametrize("damage", ["cut", "one byte"])
def test_a_damaged_lora_is_written_again_without_training(run: Run, whole: tuple[EditSettings, Path], damage: str) -> None:
    """From the finished checkpoint; the damaged file is kept under another name."""
    content = run.lora_file().read_bytes()
    run.lora_file().write_bytes(DAMAGES[damage](content))
    reporter = Recorder()
    pipeline.train(run.folder, reporter)
    assert run.lora_file().read_bytes() == content and "motion" not in reporter.stages
    assert run.lora_file().with_name("changed-edit.safetensors").read_bytes() == DAMAGES[damage](content)
    assert any("is damaged or was replaced" in note for note in reporter.notes)


@pytest.mark.parametrize("name", ["manifest.json", "edit.toml", "clip.json", "frames/00002.png", "masks/00002.png"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_of_a_run_end_in_one_line(run: Run, name: str, damage: str) -> None:
    """With exit code 2, before a model is loaded."""
    file = run.folder / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    outcome = invoke("generate", str(run.folder))
    assert outcome.exit_code == 2, outcome.stderr
    line = outcome.stderr.splitlines()[-1]
    assert line.startswith("error: ") and ";" in line
    assert "Traceback" not in outcome.stderr


def test_a_run_without_its_manifest_goes_on(whole: tuple[EditSettings, Path], run: Run) -> None:
    """As the message about a damaged one says: without training, and without losing the earlier result."""
    result = (run.folder / "result.mp4").read_bytes()
    run.manifest_file.unlink()
    reporter = Recorder()
    pipeline.generate(run.folder, reporter, seed=4)
    assert not {"motion", "appearance"} & set(reporter.stages)
    assert (run.folder / "result.mp4").read_bytes() == result
    pipeline.edit(
        settings_for(whole[1], whole[1] / "source.mkv", *ASSIGNMENTS, "seed=5"), run.folder.parent / "o.mkv", run.folder, reporter
    )
    assert result in [file.read_bytes() for file in (run.folder / "samples").glob("*.mp4")]


def test_input_that_is_damaged_is_stored_again(whole: tuple[EditSettings, Path], run: Run) -> None:
    (run.folder / "frames" / "00002.png").write_bytes(b"")
    with pytest.raises(RunError, match=r"run's input is damaged.*stores its input again"):
        pipeline.train(run.folder, SilentReporter())
    pipeline.create_run(whole[0], run.folder)
    assert hash_content(load_frames(run.folder / "frames")) == hash_content(load_frames(whole[1] / "run" / "frames"))


def test_what_killed_processes_left_is_removed_by_the_next_call(run: Run, ended_process: int) -> None:
    own = build_partial_path(run.manifest_file)
    abandoned = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{ended_process}-"))
    abandoned.write_text("half")
    with run.lock():
        assert not abandoned.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark forks and reads /proc: needs Linux")
def test_killed_and_limited_edits_resume() -> None:
    """Three kills and one limit of the memory by the benchmark, whose published counts are larger."""
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--kills", "3", "--memory-limits", "1", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, check=False, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Violations: 0." in done.stdout and "3 kills" in done.stdout
