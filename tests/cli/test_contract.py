"""The interface of the command that scripts rely on: subcommands, options, exit codes and output streams."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from click.testing import Result as Outcome
from typer.testing import CliRunner

from lora_edit import pipeline
from lora_edit.cli.main import app
from lora_edit.cli.model_cards import find_models
from lora_edit.config import EditSettings, resolve_settings
from lora_edit.errors import NonFiniteError, TrainingDivergedError, VideoError
from lora_edit.reporting import Reporter
from lora_edit.run import Run, make_run
from lora_edit.types import EditMask, Size, Video

REGION = {
    "SOURCE", "--first-frame", "--mask", "--box", "--point", "--not-point", "--mask-shape", "--expand", "--start", "--frames", "--fps",
    "--no-sign", "--sign-cert", "--sign-key", "--threads", "--segment", "--segmenter",
}  # fmt: skip
RUN = {
    *REGION, "--reference", "--anchor", "--model", "--preset", "--prompt", "--seed", "--config", "--lora", "--set", "--codec",
    "--no-composite", "--run", "--output", "--overwrite", "--json",
}  # fmt: skip

# A change here changes the documented interface and may break scripts.
CONTRACT: dict[str, set[str]] = {
    "edit": RUN,
    "new": RUN,
    "mask": {
        "SOURCE",
        "--threads",
        "--box",
        "--first-frame",
        "--point",
        "--not-point",
        "--auto",
        "--object",
        "--segment",
        "--segmenter",
        "--shape",
        "--bridge",
        "--output",
        "--overlay",
        "--overwrite",
    },
    "frame": {"SOURCE", "N", "--start", "--frames", "--fps", "--output", "--overwrite"},
    "edit-frame": {
        "SOURCE",
        "--threads",
        "--instruction",
        "--model",
        "--mask",
        "--box",
        "--reference",
        "--lora",
        "--start",
        "--seed",
        "--no-sign",
        "--output",
        "--overwrite",
    },
    "train": {"RUN", "--threads"},
    "generate": {"RUN", "--threads", "--model", "--output", "--seed", "--first-frame", "--lora", "--overwrite", "--check", "--json"},
    "preview": REGION | {"--output", "--overwrite"},
    "evaluate": {
        "RESULT",
        "--threads",
        "--source",
        "--truth",
        "--mask",
        "--first-frame",
        "--metrics",
        "--vace",
        "--baselines",
        "--prompt",
        "--json",
    },
    "study": {
        "NAME",
        "--threads",
        "--list",
        "--scenes",
        "--scenes-from",
        "--half",
        "--seeds",
        "--model",
        "--set",
        "--workers",
        "--vace",
        "--cases",
        "--tally",
        "--output",
    },
    "models": {"[NAME]", "--download", "--json"},
    "import": {"FILE", "--json"},
    "export": {"RUN", "--format", "--output", "--overwrite"},
    "verify": {"FILE", "--source", "--trust", "--no-watermark", "--json"},
    "ui": {"--host", "--port", "--allow-host", "--segmenter", "--threads"},
}
REQUIRED = {("edit", "--output"), ("mask", "SOURCE"), ("mask", "--output"), ("train", "RUN"), ("generate", "RUN"), ("preview", "--output"),
            ("evaluate", "RESULT"), ("evaluate", "--source"), ("import", "FILE"), ("export", "RUN"), ("export", "--output"),
            ("edit-frame", "SOURCE"), ("edit-frame", "--instruction"), ("edit-frame", "--output"),
            ("verify", "FILE"), ("frame", "SOURCE"), ("frame", "N"), ("frame", "--output")}  # fmt: skip

FRAME = ["edit-frame", "clip.mp4", "--instruction", "a red coat", "--output", "coat.png"]
EDIT = ["edit", "clip.mp4", "--first-frame", "first.png", "--box", "1,2,30,40", "--output", "out.mp4"]


def run(*arguments: str) -> Outcome:
    return CliRunner().invoke(app, list(arguments))


def get_error_line(outcome: Outcome, code: int) -> str:
    """Return the only line on stderr of a command that failed with this code and printed nothing to stdout."""
    assert outcome.exit_code == code, outcome.stderr
    assert outcome.stdout == ""
    line, end = outcome.stderr[:-1], outcome.stderr[-1:]
    assert end == "\n"
    assert "\n" not in line
    return line


def option_names(parameter: Any) -> str:
    return parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with the files `clip.mp4` and `first.png`, whose contents do not matter."""
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "first.png"):
        (tmp_path / name).write_bytes(b"something")
    return tmp_path


@dataclass
class Calls:
    """Arguments of the calls of the replaced pipeline."""

    settings: EditSettings | None = None
    arguments: tuple[Any, ...] = ()


def replace_edit(monkeypatch: pytest.MonkeyPatch, work: Callable[[Path, Reporter], None] = lambda folder, reporter: None) -> Calls:
    calls = Calls()

    def edit(settings: EditSettings, output: Path, folder: Path, reporter: Reporter, overwrite: bool = False) -> pipeline.Result:
        calls.settings, calls.arguments = settings, (output, folder, overwrite)
        folder.mkdir(exist_ok=True)
        work(folder, reporter)
        return pipeline.Result(output, folder, 5, Size(48, 64), Fraction(25), {"train": 1.0, "generate": 2.0}, ("mind the gap",))

    monkeypatch.setattr(pipeline, "edit", edit)
    return calls


def test_subcommands_and_options_are_unchanged() -> None:
    group: Any = typer.main.get_command(app)
    options = {name: {option_names(p) for p in command.params if p.name != "help"} for name, command in group.commands.items()}
    assert options == CONTRACT
    required = {(name, option_names(p)) for name, command in group.commands.items() for p in command.params if p.required}
    assert required == REQUIRED


def test_all_subcommands_and_options_have_help() -> None:
    group: Any = typer.main.get_command(app)
    assert all(command.help for command in group.commands.values())
    assert all(p.help for command in group.commands.values() for p in command.params)


def test_edit_prints_only_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = replace_edit(monkeypatch)
    outcome = run(*EDIT)
    assert (outcome.exit_code, outcome.stdout) == (0, "out.mp4\n")
    assert outcome.stderr == "note: mind the gap\n"
    assert calls.arguments == (Path("out.mp4"), Path("out.run"), False)


def test_edit_prints_one_json_object(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(folder: Path, reporter: Reporter) -> None:
        sys.stdout.write("a library that prints\n")
        reporter.note("mind the gap")
        reporter.step("motion", 1, 2, "loss 0.5")

    replace_edit(monkeypatch, work)
    outcome = run(*EDIT, "--json", "--run", "kept", "--overwrite")
    record = json.loads(outcome.stdout)
    assert record == {
        "output": "out.mp4", "run": "kept", "num_frames": 5, "size": "64x48", "fps": 25.0,
        "seconds": {"train": 1.0, "generate": 2.0}, "notes": ["mind the gap"],
    }  # fmt: skip
    assert outcome.stderr.count("mind the gap") == 1
    assert "motion 1/2, loss 0.5" in outcome.stderr
    assert "a library that prints" in outcome.stderr


def test_all_edit_options_set_their_settings(monkeypatch: pytest.MonkeyPatch, working_folder: Path) -> None:
    calls = replace_edit(monkeypatch)
    for name in ("four.png", "six.png", "eight.png", "style.safetensors", "few.safetensors"):
        (working_folder / name).touch()
    outcome = run(
        *EDIT, "--box", "5,6,7,8:3", "--mask-shape", "tight", "--expand", "0.25", "--start", "2", "--frames", "9", "--fps", "12.5",
        "--reference", "4=four.png", "--reference", "6=six.png", "--anchor", "8=eight.png", "--model", "tiny", "--preset", "standard",
        "--prompt", "a red cup", "--seed", "7", "--codec", "h264-444", "--no-composite", "--set", "training.motion_steps=3",
        "--lora", "style.safetensors:0.5", "--lora", "few.safetensors", "--no-sign", "--sign-cert", "chain.pem", "--sign-key", "key.pem",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.stderr
    settings = calls.settings
    assert settings is not None
    assert settings.input.source == working_folder / "clip.mp4"
    assert [box.frame for box in settings.input.boxes] == [None, 3]
    assert [(key.frame, key.image.name) for key in settings.input.references] == [(4, "four.png"), (6, "six.png")]
    assert [(key.frame, key.image.name) for key in settings.input.anchors] == [(8, "eight.png")]
    assert (settings.masks.shape, settings.masks.expand) == ("tight", 0.25)
    assert (settings.video.start, settings.video.frames, settings.video.fps, settings.video.codec) == (2, 9, 12.5, "h264-444")
    assert (settings.prompt, settings.seed, settings.compositing.enabled) == ("a red cup", 7, False)
    assert settings.training.motion_steps == 3
    provenance = settings.provenance
    assert (provenance.sign, provenance.certificate, provenance.key) == (False, working_folder / "chain.pem", working_folder / "key.pem")
    assert settings.generation.list_lora_paths() == ((working_folder / "style.safetensors", 0.5), (working_folder / "few.safetensors", 1.0))


def test_set_overrides_flags_and_flags_override_config_file(monkeypatch: pytest.MonkeyPatch, working_folder: Path) -> None:
    calls = replace_edit(monkeypatch)
    (working_folder / "kept").mkdir()
    for name in ("kept/a.mp4", "kept/b.png", "kept/m.png", "kept/style.safetensors", "c.png"):
        (working_folder / name).touch()
    config = working_folder / "kept" / "edit.toml"
    config.write_text(
        'seed = 1\nprompt = "from the file"\n[input]\nsource = "a.mp4"\nfirst_frame = "b.png"\nmask = "m.png"\n'
        "[masks]\nexpand = 0.3\nsmooth = 9\n[generation]\nsteps = 5\nloras = [{file = 'style.safetensors'}]\n"
        '[provenance]\ncertificate = "own.pem"\n'
    )
    flags = ["--first-frame", "c.png", "--seed", "2", "--expand", "0.4"]
    outcome = run("edit", "--config", str(config), *flags, "--set", "masks.expand=0.5", "--output", "o.mp4")
    assert outcome.exit_code == 0, outcome.stderr
    settings = calls.settings
    assert settings is not None
    assert settings.input.source == working_folder / "kept" / "a.mp4"  # relative to the file
    assert settings.input.mask == working_folder / "kept" / "m.png"
    assert settings.input.first_frame == working_folder / "c.png"  # relative to the person
    assert settings.provenance.sign and settings.provenance.certificate == working_folder / "kept" / "own.pem"
    assert settings.generation.list_lora_paths() == ((working_folder / "kept" / "style.safetensors", 1.0),)
    assert (settings.seed, settings.prompt, settings.generation.steps) == (2, "from the file", 5)
    assert (settings.masks.expand, settings.masks.smooth) == (0.5, 9)
    run("edit", "--config", str(config), "--box", "1,1,5,5", "--output", "o.mp4")
    assert calls.settings is not None
    assert calls.settings.input.mask is None
    assert len(calls.settings.input.boxes) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*EDIT, "--mask", "m.png"], "all-white image"),
        ([*EDIT, "--point", "3,4"], "the region is given twice"),
        ([*EDIT, "--not-point", "3,4"], "--not-point corrects the outline of --point"),
        ([*EDIT[:4], "--not-point", "3,4", *EDIT[6:]], "give --point X,Y[:FRAME] on the object too"),
        ([*EDIT[:4], "--point", "3", *EDIT[6:]], "write X,Y[:FRAME][#NAME]"),
        (["edit", "nofile.mp4", *EDIT[2:]], "nofile.mp4: no such file or folder"),
        ([*EDIT[:3], "nofile.png", *EDIT[4:]], "nofile.png: no such file or folder"),
        ([*EDIT, "--reference", "4=four.png"], "four.png: no such file or folder"),
        ([*EDIT[:4], "--mask", "nomask", *EDIT[6:]], "nomask: no such file or folder"),
        (["preview", "nofile.mp4", *EDIT[2:]], "nofile.mp4: no such file or folder"),
        (["frame", "nofile.mp4", "3", "--output", "f.png"], "nofile.mp4: no such file or folder"),
        (["frame", "clip.mp4", "3", "--output", "f.jpg"], "end the name in .png"),
        (["frame", "clip.mp4", "3", "--frames", "3", "--output", "f.png"], "the range has frames 0 to 2"),
        (["frame", "clip.mp4", "-1", "--output", "f.png"], "-1"),
        (["generate", "nowhere"], "nowhere: not a run folder"),
        ([*EDIT, "--box", "1,2,3"], "write X,Y,W,H[:FRAME]"),
        ([*EDIT, "--reference", "four.png"], "write N=IMAGE"),
        ([*EDIT, "--set", "nonsense=1"], "section.setting=value"),
        ([*EDIT, "--set", "training.nonsense=1"], "training.nonsense: no such setting; docs/settings.md lists"),
        ([*EDIT, "--set", "training.motion_step=1"], "training.motion_step: no such setting; did you mean training.motion_steps?"),
        ([*EDIT, "--set", "generation.motion_steps=1"], "did you mean training.motion_steps?"),
        ([*EDIT, "--set", "trainin.motion_steps=1"], "did you mean training.motion_steps?"),
        ([*EDIT, "--set", "sead=1"], "did you mean seed?"),
        ([*EDIT, "--expand", "9"], "masks.expand"),
        ([*EDIT, "--seed", "-1"], "seed"),
        ([*EDIT, "--seed", "red"], "--seed"),
        ([*EDIT, "--config", "missing.toml"], "missing.toml"),
        ([*EDIT, "--lora", "style.safetensors:9"], "from -4 to 4"),
        ([*EDIT, "--lora", "style.safetensors:0.8"], "style.safetensors: no such file"),
        ([*EDIT, "--preset", "faster"], "standard"),
        ([*EDIT, "--mask-shape", "round"], "as-is"),
        ([*EDIT, "--model", "wan9"], "this version has tiny"),
        ([*EDIT, "--nonsense"], "--nonsense"),
        (EDIT[:-2], "--output"),
        (["edit", *EDIT[2:]], "SOURCE is missing"),
        ([*EDIT[:2], *EDIT[4:]], "--first-frame IMAGE"),
        (["new", *EDIT[1:-2]], "--run FOLDER"),
        (["verify", "out.mp4"], "out.mp4: no such file or folder"),
        (["export"], "export"),
        (["export", "nowhere", "--output", "a.safetensors"], "nowhere: not a run folder"),
        (["--nonsense"], "--nonsense"),
        ([], "--help"),
        (["train", "nowhere"], "nowhere"),
        (["models", "huge"], "this version has tiny"),
        (["mask", "clip.mp4", "--output", "m"], "--box"),
        (["mask", "nofile.mp4", "--point", "1,1", "--output", "m"], "nofile.mp4: no such file"),
        (["mask", "clip.mp4", "--point", "1,1", "--first-frame", "first.png", "--output", "m"], "give the region in one way"),
        (["mask", "clip.mp4", "--point", "1", "--output", "m"], "write X,Y[:FRAME][#NAME]"),
        (["mask", "clip.mp4", "--point", "1,2:-3", "--output", "m"], "frames count from 0"),
        (["mask", "clip.mp4", "--box", "1,2,3#hat", "--output", "m"], "write X,Y,W,H[:FRAME]"),
        (["mask", "clip.mp4", "--point", "1,1", "--output", "m.webm"], "masks are stored losslessly"),
        (["evaluate", "r.mp4", "--source", "clip.mp4"], "r.mp4: no such file"),
        ([*FRAME, "--model", "photoshop"], "this version has qwen-image-edit, flux-kontext, flux-fill"),
        (FRAME, "Qwen/Qwen-Image-Edit is not on this machine; get it with `hf download Qwen/Qwen-Image-Edit` (about 58 GB; Apache-2.0)"),
        ([*FRAME, "--model", "flux-kontext"], "not for commercial use"),
        ([*FRAME, "--model", "flux-fill@nowhere"], "nowhere is not on this machine"),
        ([*FRAME, "--model", "flux-fill@"], "no such editor"),
        ([*FRAME[:3], " ", *FRAME[4:]], "--instruction is empty"),
        ([*FRAME[:-1], "out.jpg"], "end the name in .png"),
        ([*FRAME, "--box", "1,2,3"], "write X,Y,W,H"),
        ([*FRAME, "--box", "1,2,3,4", "--mask", "m.png"], "both --mask and --box"),
        ([*FRAME[:2], *FRAME[4:]], "--instruction"),
        (["evaluate", "r.mp4", "--source", "s.mp4", "--metrics", "fvd"], "unknown metric fvd; choose from region_psnr"),
        (["evaluate", "clip.mp4", "--source", "clip.mp4", "--metrics", "clip_score"], "--first-frame"),
        (["study", "x" * 5, "--output", "s"], "this version"),
        (["study", "methods", "--tally", "a.json", "--output", "s"], "--tally is an option of `study users` only"),
        (["study", "methods", "--cases", "c.jsonl", "--scenes", "2", "--output", "s"], "--scenes and --cases are both given"),
        (["study", "methods", "--cases", "c.jsonl", "--scenes-from", "f", "--output", "s"], "--scenes-from and --cases are both given"),
        (["study", "methods", "--half", "seen", "--output", "s"], "--half needs --scenes-from"),
        (["study", "methods", "--scenes-from", "f", "--output", "s"], "--scenes-from f: has no scenes.jsonl"),
        (["study", "users", "--cases", "c", "--scenes-from", "f", "--output", "s"], "--scenes-from: is not an option"),
        (["evaluate", "r.mp4", "--source", "s.mp4", "--baselines"], "give --truth T, --mask M, --first-frame IMAGE"),
        (["study", "methods", "--cases", "c.jsonl", "--output", "s"], "--cases c.jsonl: no such file"),
        (["study", "frames", "--cases", "clip.mp4", "--output", "s"], "leave out --cases, or choose another study"),
        (["study", "windows", "--vace", "v", "--output", "s"], "--vace is an option of `study methods` only"),
        (["study", "methods", "--vace", "v", "--output", "s"], "--vace v: no such folder or downloaded repository"),
        (["study", "users", "--output", "s"], "one of --cases FOLDER"),
        (["study", "users", "--cases", "c", "--tally", "a.json", "--output", "s"], "one of --cases FOLDER"),
        (["study", "users", "--cases", "c"], "--output FOLDER"),
        (["study", "users", "--cases", "c", "--output", "s"], "--cases c: no such folder"),
        (["study", "users", "--cases", "c", "--scenes", "2", "--output", "s"], "--scenes: is not an option"),
        (["study", "users", "--tally", "a.json", "--output", "s"], "key.json: no such file"),
    ],
)
def test_input_errors_print_one_line_and_write_nothing(arguments: list[str], words: str, working_folder: Path) -> None:
    before = set(working_folder.iterdir())
    line = get_error_line(run(*arguments), 2)
    assert line.startswith("error: ")
    assert words in line
    assert set(working_folder.iterdir()) == before


def test_input_error_is_printed_as_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(folder: Path, reporter: Reporter) -> None:
        raise VideoError("clip.mp4: no such file;\n check the path [red]")

    replace_edit(monkeypatch, work)
    assert get_error_line(run(*EDIT, "--json"), 2) == "error: clip.mp4: no such file; check the path [red]"


def test_full_disk_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(folder: Path, reporter: Reporter) -> None:
        raise OSError(28, "No space left on device", "out.mp4")

    replace_edit(monkeypatch, work)
    assert "out.mp4" in get_error_line(run(*EDIT), 2)


def test_a_folder_in_the_place_of_a_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def work(folder: Path, reporter: Reporter) -> None:
        (tmp_path / "edit.safetensors").mkdir()
        (tmp_path / "part").touch()
        (tmp_path / "part").replace(tmp_path / "edit.safetensors")

    replace_edit(monkeypatch, work)
    assert get_error_line(run(*EDIT), 2).endswith("edit.safetensors: is a directory; remove it")


def test_an_output_that_is_not_finite_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings and LoRAs cause it."""

    def work(folder: Path, reporter: Reporter) -> None:
        raise NonFiniteError("the model's output is not finite; check --lora")

    replace_edit(monkeypatch, work)
    assert get_error_line(run(*EDIT), 2) == "error: the model's output is not finite; check --lora"


def test_errors_are_short_and_printable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and values of files may be of any length and hold control sequences of terminals; what to do stands at the end."""

    def work(folder: Path, reporter: Reporter) -> None:
        raise VideoError("a.mp4: \x1b]0;title\x07" + "x" * 5000 + "; export it again")

    replace_edit(monkeypatch, work)
    line = get_error_line(run(*EDIT), 2)
    assert len(line) < 1100 and line.isprintable() and line.endswith("; export it again")


@pytest.mark.parametrize("error", [RuntimeError("a\nbug"), TrainingDivergedError("loss is not finite at step 3")])
def test_internal_error_prints_one_line_and_logs_traceback(monkeypatch: pytest.MonkeyPatch, working_folder: Path, error: Exception) -> None:
    def work(folder: Path, reporter: Reporter) -> None:
        (folder / "log.txt").write_text("earlier\n")
        raise error

    replace_edit(monkeypatch, work)
    line = get_error_line(run(*EDIT), 1)
    assert type(error).__name__ in line
    assert str(Path("out.run") / "log.txt") in line
    log = (working_folder / "out.run" / "log.txt").read_text()
    assert log.startswith("earlier\n")
    assert "Traceback" in log


def test_traceback_goes_to_temporary_file_without_run_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(settings: EditSettings, reporter: Reporter) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(pipeline, "check", check)
    log = Path(get_error_line(run("preview", *EDIT[1:]), 1).rpartition("the traceback is in ")[2].rstrip(")"))
    assert "Traceback" in log.read_text()
    log.unlink()


def test_interruption_prints_how_to_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(folder: Path, reporter: Reporter) -> None:
        raise KeyboardInterrupt

    replace_edit(monkeypatch, work)
    assert get_error_line(run(*EDIT), 130) == "interrupted; run the same command again to resume"


def test_output_never_replaces_input(monkeypatch: pytest.MonkeyPatch, working_folder: Path) -> None:
    replace_edit(monkeypatch)
    (working_folder / "clip.mp4").write_bytes(b"precious")
    arguments = ["clip.mp4" if word == "out.mp4" else word for word in EDIT]
    assert "part of the input" in get_error_line(run(*arguments, "--overwrite"), 2)


def test_new_checks_and_estimates_and_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.zeros(5, 48, 64, 3, dtype=torch.uint8)
    video = Video(frames, Fraction(25), tuple(i / 25 for i in range(5)))

    @dataclass(frozen=True)
    class Clip:
        video: Video
        edit_mask: EditMask
        notes: tuple[str, ...] = ("a remark",)

    @dataclass(frozen=True)
    class Estimate:
        seconds_train: float = 90.0
        seconds_generate: float = 4.0
        memory_bytes: int = 850_000_000
        canvas_size: Size = Size(80, 80)  # noqa: RUF009
        windows: int = 1
        host_bytes: int = 0
        offload_plan: None = None
        blocks: int = 0

        def describe_offloading(self) -> str:
            return ""

    monkeypatch.setattr(pipeline, "check", lambda settings, reporter: Clip(video, EditMask(torch.ones(5, 48, 64, dtype=torch.bool))))
    monkeypatch.setattr(pipeline, "estimate", lambda settings, clip: Estimate())
    monkeypatch.setattr(pipeline, "create_run", lambda settings, folder, reporter, clip: Run(folder))
    outcome = run("new", *EDIT[1:])
    assert (outcome.exit_code, outcome.stdout) == (0, "out.run\n"), outcome.stderr
    assert "a remark" in outcome.stderr
    assert "2 min to train" in outcome.stderr
    assert "850 MB" in outcome.stderr
    record = json.loads(run("new", *EDIT[1:], "--json").stdout)
    assert record["run"] == "out.run"
    assert record["estimate"] == {
        "seconds_train": 90.0, "seconds_generate": 4.0, "memory_bytes": 850_000_000, "canvas": "80x80", "windows": 1, "host_bytes": 0,
        "blocks_to_swap": 0, "blocks": 0, "download_bytes": 0,
    }  # fmt: skip


def test_train_and_generate_use_the_run(monkeypatch: pytest.MonkeyPatch, working_folder: Path) -> None:
    seen: list[Any] = []
    make_run(Path("kept"), resolve_settings({"input": {"source": "clip.mp4", "first_frame": "first.png"}}))
    for name in ("f.png", "a.safetensors"):
        (working_folder / name).touch()

    def generate(*arguments: Any) -> pipeline.Result:
        seen.append(arguments[:1] + arguments[2:])
        return pipeline.Result(Path("s.mp4"), arguments[0], 5, Size(48, 64), Fraction(25), {}, ())

    monkeypatch.setattr(pipeline, "train", lambda folder, reporter: seen.append(folder))
    monkeypatch.setattr(pipeline, "generate", generate)
    assert run("train", "kept").stdout == "kept\n"
    outcome = run("generate", "kept", "--seed", "3", "--first-frame", "f.png", "--output", "s.mp4")
    assert outcome.stdout == "s.mp4\n"
    assert "the embedded model gives nearly the same result for every seed" in outcome.stderr
    outcome = run("generate", "kept", "--lora", "a.safetensors:2")
    assert outcome.stdout == "s.mp4\n" and "every seed" not in outcome.stderr
    assert seen[:2] == [Path("kept"), (Path("kept"), Path("s.mp4"), False, 3, Path("f.png"), None, None)]
    assert seen[2][-2:] == ([(Path("a.safetensors").absolute(), 2.0)], None)
    assert run("generate", "kept", "--model", "tiny").stdout == "s.mp4\n"
    assert seen[3][-1] == "tiny"


def test_models_match_registry() -> None:
    from lora_edit.models.families.registry import KNOWN_MODELS

    cards = {card.name: card for card in find_models(None)}
    assert {facts.name for facts in KNOWN_MODELS} <= set(cards)
    for facts in KNOWN_MODELS:
        width, height = map(int, cards[facts.name].size.split("x"))
        assert (cards[facts.name].frames, width * height) == (facts.geometry.max_frames, facts.geometry.native_area)
    assert (cards["tiny"].size, cards["wan2.1-i2v-480p"].size, cards["wan2.2-i2v-a14b"].size) == ("128x128", "832x480", "1280x720")


def test_models_lists_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_edit.models.families.registry import KNOWN_MODELS

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    listed = run("models").stdout
    assert all(facts.name in listed for facts in KNOWN_MODELS)
    assert "Apache-2.0" in run("models", "tiny").stdout
    cards = {card["name"]: card for card in json.loads(run("models", "--json").stdout)["models"]}
    assert list(cards) == [facts.name for facts in KNOWN_MODELS]
    assert (cards["tiny"]["weights"], cards["tiny"]["needs"]) == ("included", "edited first frame")
    assert cards["wan2.1-i2v-480p"]["weights"] == "not downloaded, about 90 GB"
    assert cards["wan2.1-fun-1.3b"]["weights"] == "not downloaded, about 30 GB"
    assert cards["wan2.1-flf2v"]["needs"] == "edited first frame, edited last frame, prompt"


def test_models_shows_folder_of_downloaded_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--Wan-AI--Wan2.2-I2V-A14B-Diffusers" / "snapshots" / "abc"
    assert find_models("wan2.2-i2v-a14b")[0].state == "missing"
    for part in ("transformer", "transformer_2", "vae", "text_encoder", "tokenizer"):
        (snapshot / part).mkdir(parents=True)
        (snapshot / part / "config.json").write_text("{}")
        (snapshot / part / "model.safetensors.incomplete").write_text("")
        card = find_models("wan2.2-i2v-a14b")[0]
        assert (card.state, card.weights) == ("partial" if part != "transformer" else "missing", card.weights), part
        (snapshot / part / "model.safetensors").write_text("")
        (snapshot / part / "tokenizer.json").write_text("{}")
    card = find_models("wan2.2-i2v-a14b")[0]
    assert (card.state, card.weights) == ("downloaded", f"in {snapshot}")


LIGHT = """
import json, sys
from lora_edit.cli.main import app
for arguments, code in json.loads(sys.argv[1]):
    try:
        app(arguments)
    except SystemExit as end:
        assert (end.code or 0) == code, (arguments, end.code)
    heavy = {"torch", "numpy", "diffusers", "transformers", "peft", "av", "cv2", "safetensors"} & set(sys.modules)
    assert not heavy, (arguments, heavy)
"""


def test_help_and_input_errors_load_no_heavy_library(working_folder: Path) -> None:
    """This keeps them fast, and unlike time it does not depend on the machine."""
    (working_folder / "there.mp4").touch()
    faults = [
        ["edit", "nofile.mp4", *EDIT[2:]],
        ["new", "clip.mp4", "--first-frame", "nofile.png", "--output", "o.mp4"],
        [*EDIT, "--set", "training.motion_step=1"],
        [*EDIT, "--expand", "9"],
        [*EDIT, "--reference", "4=nofile.png"],
        [*EDIT, "--lora", "nofile.safetensors"],
        [*EDIT, "--preset", "faster"],
        [*EDIT[:-1], "there.mp4"],
        [*EDIT[:-1], "clip.mp4", "--overwrite"],
        ["preview", "nofile.mp4", *EDIT[2:]],
        ["mask", "nofile.mp4", "--point", "1,1", "--output", "m"],
        ["mask", "clip.mp4", "--point", "1", "--output", "m"],
        ["mask", "clip.mp4", "--point", "1,1", "--output", "m.webm"],
        ["frame", "nofile.mp4", "3", "--output", "f.png"],
        ["edit-frame", "nofile.mp4", *FRAME[2:]],
        ["train", "nowhere"],
        ["generate", "nowhere"],
        ["evaluate", "nofile.mp4", "--source", "clip.mp4"],
        ["export", "nowhere", "--output", "a.safetensors"],
        ["import", "nofile.safetensors"],
        [*EDIT, "--not-point", "3,4"],
        [*EDIT[:4], "--not-point", "3,4", *EDIT[6:]],
        [*EDIT, "--model", "wan9"],
        [*EDIT, "--model", "wan2.1-i2v-480p"],
        ["study", "nosuch"],
        ["study", "methods", "--cases", "nofile.jsonl", "--output", "s"],
        ["study", "methods", "--scenes-from", "nofolder", "--output", "s"],
        ["study", "users", "--cases", "nofolder", "--output", "s"],
        ["study", "users", "--tally", "nofile.json", "--output", "s"],
        [*EDIT[:-1], "out.xyz"],
        [*EDIT, "--codec", "ffv1"],
        [*EDIT, "--run", "clip.mp4"],
        ["new", *EDIT[1:-1], "out.xyz"],
        ["preview", *EDIT[1:-1], "out.xyz"],
        ["mask", "clip.mp4", "--box", "1,2,3,4", "--output", "m", "--overlay", "shown.xyz"],
        ["mask", "clip.mp4", "--point", "1,1", "--segmenter", "magic", "--output", "m"],
        ["mask", "clip.mp4", "--box", "1,2,3,4", "--output", "clip.mp4", "--overwrite"],
        ["evaluate", "clip.mp4", "--source", "clip.mp4", "--metrics", "clip_score"],
        ["evaluate", "clip.mp4", "--source", "clip.mp4", "--vace", "v", "--mask", "first.png", "--first-frame", "first.png"],
        [*FRAME, "--model", "photoshop"],
        [*FRAME[:3], " ", *FRAME[4:]],
        [*FRAME[:-1], "out.jpg"],
        FRAME,
    ]
    calls = [(["edit", "--help"], 0), *((fault, 2) for fault in faults)]
    done = subprocess.run([sys.executable, "-c", LIGHT, json.dumps(calls)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--first-frame" in done.stdout
    assert done.stderr.count("error: ") == len(faults)


def test_package_runs_as_module() -> None:
    """`python -m lora_edit` works without the installed script."""
    done = subprocess.run([sys.executable, "-m", "lora_edit", "train", "nowhere"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: nowhere: not a run folder")


def test_help_fits_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """No panel title is cut off, and no list of choices is broken within a word."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        page = run(name, "--help").stdout
        titles = {getattr(each, "rich_help_panel", None) for each in command.params} - {None}
        assert all(f" {title} ─" in page for title in titles), name
        assert not [line for line in page.splitlines() if re.search(r"<[a-z][^>]*$", line)], name


def test_study_list_has_descriptions() -> None:
    from lora_edit.studies.registry import DESCRIPTIONS, STUDIES

    assert list(DESCRIPTIONS) == [*STUDIES, "users"]
    lines = run("study", "--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(DESCRIPTIONS)
    assert all(line.endswith(DESCRIPTIONS[line.split()[0]]) for line in lines)


def test_main_module_runs_as_script() -> None:
    done = subprocess.run([sys.executable, "-m", "lora_edit.cli.main", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("lora-edit 0.")
