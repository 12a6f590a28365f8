"""Disturb an edit and resume it: SIGKILL at random moments, a full disk, limited memory.

`python benchmarks/faults.py --kills 100 --full-disk 20 --memory-limits 20` on Linux; a full disk needs the right to mount a tmpfs. After
each fault, every file under its final name has to open completely, the source files have to be unchanged, and no finished training or
sampling may be repeated. Each resumed edit has to end with the LoRA and the result frames of an undisturbed one. Ends with exit code 1
otherwise. `--page FILE` writes the table of docs/benchmarks/faults.md.

The edits run in children that are forked after all libraries are imported, so that a fault hits the edit and not the imports.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIGHT = ("method.hint=none", "compositing.detail=false", "training.recolour=0", "masks.check=false", "lora.rank=4")
"""Settings that leave out work which no fault can hit differently: the prediction of the clip, and the check of the region."""
STAGES = (
    "check", "store inputs", "prepare", "motion", "appearance", "generate", "composite", "write", "compare",
    "measure", "report",
)  # fmt: skip
TRAINING = ("motion", "appearance")
CHECKPOINT_EVERY = 2
KILLS_PER_EDIT = 4
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Event:
    """A step of the edit that was reported at `time`, in seconds since the start."""

    stage: str
    done: int
    time: float

    @property
    def order(self) -> tuple[int, int]:
        """Position within an edit."""
        return STAGES.index(self.stage), self.done


@dataclass
class Attempt:
    """One call of the command: its events, its exit code (negative for a signal), its lines on stderr, the memory that it had mapped."""

    events: list[Event] = field(default_factory=list)
    code: int = 0
    errors: list[str] = field(default_factory=list)
    peak_bytes: int = 0

    def list_steps(self, stage: str) -> list[int]:
        """List the reported steps of a stage."""
        return [event.done for event in self.events if event.stage == stage]


@dataclass
class Tally:
    """Counts by kind of fault, and every violation."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in ("kills", "full disk", "memory")})
    edits: int = 0
    overwrites: int = 0
    faults: list[str] = field(default_factory=list)


def write_sources(folder: Path, frames: int) -> None:
    """Write a small clip of drifting noise, and its edited first and last frame."""
    from fractions import Fraction

    import torch

    from lora_edit.types import Video
    from lora_edit.video.sheet import save_image
    from lora_edit.video.write import write_video

    wide = torch.randint(0, 256, (12, 20, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    wide = wide.repeat_interleave(4, 0).repeat_interleave(4, 1)
    clip = torch.stack([wide[:, number : number + 64] for number in range(frames)])
    write_video(folder / "source.mkv", Video(clip, Fraction(8), tuple(number / 8 for number in range(frames))), "ffv1")
    for name, frame in (("first", clip[0]), ("last", clip[-1])):
        edited = frame.clone()
        edited[12:28, 14:38] = torch.tensor([200, 30, 30], dtype=torch.uint8)
        save_image(folder / f"{name}.png", edited)
    region = torch.zeros_like(clip[0])
    region[10:30, 10:40] = 255
    save_image(folder / "mask.png", region)


def build_arguments(folder: Path, steps: int, frames: int) -> list[str]:
    """Build the arguments of the edit: short training on a small clip, with an edited last frame. The sources lie beside `folder`."""
    sources = folder.parent / "sources"
    return [
        "edit", str(sources / "source.mkv"), "--first-frame", str(sources / "first.png"), "--mask", str(sources / "mask.png"),
        "--reference", f"{frames - 1}={sources / 'last.png'}", "--output", str(folder / "out.mp4"), "--run", str(folder / "run"),
        "--threads", "1", "--set", f"training.motion_steps={steps}", "--set", f"training.appearance_steps={steps // 2}",
        "--set", "training.batch_size=1", "--set", f"training.checkpoint_every={CHECKPOINT_EVERY}",
        "--set", "generation.steps=2", *(part for setting in LIGHT for part in ("--set", setting)),
    ]  # fmt: skip


def import_libraries() -> None:
    """Import everything that an edit needs, so that children share it."""
    import matplotlib.figure
    import peft
    import transformers

    import lora_edit.cli.main
    import lora_edit.models.families.embedded.loading
    import lora_edit.pipeline

    assert all((matplotlib.figure, peft, transformers, lora_edit.cli.main, lora_edit.models.families.embedded.loading, lora_edit.pipeline))


def trace_steps(report: Callable[[str, int], None]) -> None:
    """Let every reported step of the edit call `report`, and the storing of the input and the end of the measurement as well."""
    from lora_edit import pipeline, results
    from lora_edit.cli.progress import PlainReporter

    step, store_inputs, compute_quick_metrics = PlainReporter.step, pipeline.store_inputs, results.compute_quick_metrics

    def traced_step(self: PlainReporter, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        report(stage if stage in STAGES else "check", done)
        step(self, stage, done, total, detail, seconds_left)

    def traced_store(*arguments: Any) -> bool:
        report("store inputs", 0)
        stored = store_inputs(*arguments)
        report("store inputs", 1)
        return stored

    def traced_metrics(*arguments: Any) -> dict[str, object]:
        report("measure", 0)
        metrics = compute_quick_metrics(*arguments)
        report("report", 0)
        return metrics

    PlainReporter.step = traced_step
    pipeline.store_inputs = traced_store
    results.compute_quick_metrics = traced_metrics


def run_edit(arguments: list[str], kill_after: Callable[[Event], float | None] | None = None, memory: int | None = None) -> Attempt:
    """Run the command in a child.

    `kill_after` returns, for an event, the seconds until SIGKILL. With `memory`, the child may map this many bytes more than the parent.
    """
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _run_child(arguments, writer, errors.fileno(), memory)
        os.close(writer)
        attempt, deadline, rest = Attempt(), None, b""
        while True:
            ready, _, _ = select.select([reader], [], [], None if deadline is None else max(0.0, deadline - time.monotonic()))
            if not ready:
                os.kill(child, signal.SIGKILL)
                break
            received = os.read(reader, 65536)
            if not received:
                break
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                stage, done, peak = line.decode().split("\t")
                event = Event(stage, int(done), time.monotonic() - started)
                attempt.events.append(event)
                attempt.peak_bytes = int(peak)
                delay = kill_after(event) if kill_after and deadline is None else None
                if delay is not None:
                    deadline = time.monotonic() + delay
        os.close(reader)
        attempt.code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        errors.seek(0)
        text = errors.read().decode("utf-8", "replace")
    attempt.errors = text.splitlines()
    return attempt


def _run_child(arguments: list[str], writer: int, errors: int, memory: int | None) -> None:
    """Run the command; never returns."""
    code = 1
    try:
        os.dup2(errors, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        if memory is not None:
            limit = _read_mapped_bytes("VmSize") + memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        def report(stage: str, done: int) -> None:
            os.write(writer, f"{stage}\t{done}\t{_read_mapped_bytes('VmPeak')}\n".encode())

        report("check", 0)
        trace_steps(report)
        sys.argv = ["lora-edit", *arguments]
        from lora_edit.cli.main import main

        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(code)


def _read_mapped_bytes(name: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{name}:"))


def call_in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a child and return its result, by way of JSON.

    This process itself computes nothing: a child that is forked beside threads of libraries can wait for their locks forever.
    """
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                json.dump(function(*arguments), output)
                output.flush()
                code = 0
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert status == 0, f"{function.__name__} failed"
        output.seek(0)
        return json.load(output)


def check_complete(folder: Path) -> list[str]:
    """Open every file under its final name completely; returns the faults."""
    from lora_edit.atomic_files import is_partial

    faults = []
    for file in sorted(folder.rglob("*")):
        relative = file.relative_to(folder)
        if file.is_file() and not is_partial(relative):
            try:
                _open_completely(file)
            except Exception as error:  # noqa: BLE001
                faults.append(f"{relative}: {type(error).__name__}: {error}")
    return faults


def _open_completely(file: Path) -> None:
    import torch
    from PIL import Image
    from safetensors.torch import load

    from lora_edit.video.read import read_video

    suffix = file.suffix
    if suffix == ".json":
        json.loads(file.read_text("utf-8"))
    elif suffix == ".toml":
        tomllib.loads(file.read_text("utf-8"))
    elif suffix == ".safetensors":
        load(file.read_bytes())
    elif suffix == ".png":
        with Image.open(file) as image:
            image.load()
    elif suffix == ".mp4":
        assert read_video(file).num_frames
    elif suffix == ".pt":
        with zipfile.ZipFile(file) as archive:
            assert archive.testzip() is None
        torch.load(file, weights_only=True)
    elif suffix == ".c2pa":
        box = file.read_bytes()
        assert box[4:8] == b"jumb" and int.from_bytes(box[:4], "big") == len(box)
    elif suffix == ".html":
        assert file.read_text("utf-8").rstrip().endswith("</html>")
    else:
        assert file.name in (".lock", ".owner", "log.txt"), "unexpected file"


def describe_result(folder: Path) -> dict[str, str]:
    """Hash the LoRA, the lossless result frames, and the decoded frames of the output."""
    from lora_edit.types import hash_content
    from lora_edit.video.read import read_video

    frames = hashlib.sha256()
    for file in sorted((folder / "run" / "result").glob("*.png")):
        frames.update(file.read_bytes())
    return {
        "LoRA": hashlib.sha256((folder / "run" / "lora" / "edit.safetensors").read_bytes()).hexdigest(),
        "result frames": frames.hexdigest(),
        "output": hash_content(read_video(folder / "out.mp4").frames),
    }


def hash_sources(folder: Path) -> str:
    """Hash the source files of the edit."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()


class Benchmark:
    """The edits of one call, compared with an undisturbed one."""

    def __init__(self, base: Path, seed: int, steps: int, frames: int) -> None:
        self.base, self.rng, self.steps, self.frames = base, random.Random(seed), steps, frames
        (base / "sources").mkdir()
        call_in_child(write_sources, base / "sources", frames)
        self.tally, self.sources = Tally(), hash_sources(base / "sources")
        folder = base / "whole"
        folder.mkdir()
        before = time.monotonic()
        self.whole = run_edit(build_arguments(folder, steps, frames))
        self.seconds = time.monotonic() - before
        if self.whole.code:
            raise SystemExit("\n".join(self.whole.errors))
        self.expected = call_in_child(describe_result, folder)
        assert not call_in_child(check_complete, folder)
        self.bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        shutil.rmtree(folder)
        print(f"undisturbed: {self.seconds:.1f} s, {len(self.whole.events)} events, {self.bytes / MEGABYTE:.1f} MB", flush=True)

    def fault(self, name: str, text: str) -> None:
        """Record a violation."""
        self.tally.faults.append(f"{name}: {text}")
        print(f"VIOLATION {name}: {text}", flush=True)

    def check_after(self, name: str, folder: Path) -> None:
        """Check what a fault left behind."""
        for text in call_in_child(check_complete, folder):
            self.fault(name, f"incomplete {text}")
        if hash_sources(self.base / "sources") != self.sources:
            self.fault(name, "a source file changed")

    def read_progress(self, folder: Path) -> dict[str, bool]:
        """Read which long stages a fault left finished."""
        run = folder / "run"
        manifest = json.loads((run / "manifest.json").read_text("utf-8")) if (run / "manifest.json").is_file() else {}
        trained = "training_key" in manifest and (run / "lora" / "edit.safetensors").is_file()
        return {
            "motion": trained or (run / "checkpoints" / "training-motion.pt").is_file(),
            "appearance": trained,
            "generate": any((run / "cache").glob("*.safetensors")),
        }

    def check_resumed(self, name: str, finished: dict[str, bool], last: dict[str, int], attempt: Attempt) -> None:
        """Check that a resumed edit repeats no finished stage, and at most the steps since the last checkpoint."""
        for stage, is_finished in finished.items():
            if is_finished and attempt.list_steps(stage):
                self.fault(name, f"{stage} was finished and ran again, from step {attempt.list_steps(stage)[0]}")
        for stage in TRAINING:
            steps = attempt.list_steps(stage)
            if steps and steps[0] < last.get(stage, 0) // CHECKPOINT_EVERY * CHECKPOINT_EVERY + 1:
                self.fault(name, f"{stage} step {last[stage]} was done, and training resumed at step {steps[0]}")

    def finish(self, name: str, folder: Path, finished: dict[str, bool], last: dict[str, int]) -> None:
        """Run the edit to its end without a fault and compare its result."""
        attempt = run_edit(build_arguments(folder, self.steps, self.frames))
        if attempt.code == 2 and any("exists already" in line for line in attempt.errors):  # killed between the output and its record
            self.tally.overwrites += 1
            attempt = run_edit([*build_arguments(folder, self.steps, self.frames), "--overwrite"])
        if attempt.code:
            self.fault(name, f"the resumed edit ended with {attempt.code}: {attempt.errors[-1:]}")
            return
        self.check_resumed(name, finished, last, attempt)
        self.compare(name, folder)

    def compare(self, name: str, folder: Path) -> None:
        """Compare the files of a finished edit with those of the undisturbed one."""
        self.check_after(name, folder)
        for part, value in call_in_child(describe_result, folder).items():
            if value != self.expected[part]:
                self.fault(name, f"{part} differs from the undisturbed edit's")
        left = [file.name for file in folder.rglob("*.partial*")]
        if left:
            self.fault(name, f"temporary files were left: {left}")
        self.tally.edits += 1

    def choose_moment(self, earliest: tuple[int, int]) -> Callable[[Event], float | None]:
        """Choose a stage that is still ahead, an event in it, and a moment before the next event."""
        events = [each for each in self.whole.events if each.order >= earliest] or self.whole.events[-1:]
        stage = self.rng.choice(sorted({each.stage for each in events}))
        event = self.rng.choice([each for each in events if each.stage == stage])
        later = [each.time for each in self.whole.events if each.time > event.time] or [event.time + self.seconds / 20]
        delay = self.rng.random() * (later[0] - event.time)
        return lambda each: delay if each.order >= event.order else None

    def run(self, kills: int, disks: int, limits: int, on_edit: Callable[[], None]) -> None:
        """Run all faults, the kinds in turn; `on_edit` is called after each edit."""
        planned = {"kills": kills, "full disk": disks, "memory": limits}
        work = {"kills": self.kill_edit, "full disk": self.fill_disk, "memory": self.limit_memory}
        while any(self.count(kind) < count for kind, count in planned.items()):
            kind = max(planned, key=lambda each: 1 - self.count(each) / planned[each] if planned[each] else 0)
            folder = self.base / "edit"
            folder.mkdir()
            work[kind](folder, planned[kind] - self.count(kind))
            shutil.rmtree(folder)
            on_edit()

    def count(self, kind: str) -> int:
        """Count the faults of a kind so far."""
        return sum(self.tally.counts[kind].values())

    def kill_edit(self, folder: Path, most: int) -> None:
        """Kill an edit at random moments, several times, and resume it each time."""
        earliest, finished, last, attempt = (0, 0), dict[str, bool](), dict[str, int](), Attempt()
        for _ in range(min(KILLS_PER_EDIT, most)):
            name = f"kill {self.count('kills') + 1}"
            attempt = run_edit(build_arguments(folder, self.steps, self.frames), self.choose_moment(earliest))
            self.check_resumed(name, finished, last, attempt)
            if attempt.code != -signal.SIGKILL:
                break  # it ended before its moment, or the output stands; `finish` tells whether well
            stage = attempt.events[-1].stage
            self.tally.counts["kills"][stage] += 1
            self.check_after(name, folder)
            finished = self.read_progress(folder)
            last |= {each: max(attempt.list_steps(each)) for each in TRAINING if attempt.list_steps(each)}
            earliest = max(earliest, attempt.events[-1].order)
            print(f"{name}: {stage} {attempt.events[-1].done}, after {attempt.events[-1].time:.1f} s", flush=True)
        if attempt.code == 0:
            self.compare(name, folder)
        else:
            self.finish(name, folder, finished, last)

    def fill_disk(self, folder: Path, most: int) -> None:
        """Run an edit on a file system that is too small, then enlarge it and resume."""
        assert most > 0
        size, name = int(self.rng.uniform(0.02, 1.0) * self.bytes), f"full disk {self.count('full disk') + 1}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
        try:
            attempt = run_edit(build_arguments(folder, self.steps, self.frames))
            self.record_end("full disk", name, attempt, f"{size / MEGABYTE:.2f} MB")
            self.check_after(name, folder)
            finished = self.read_progress(folder)
            subprocess.run(["mount", "-o", "remount,size=1g", str(folder)], check=True)
            if attempt.code:
                self.finish(name, folder, finished, {})
            else:
                self.compare(name, folder)
        finally:
            subprocess.run(["umount", str(folder)], check=True)

    def limit_memory(self, folder: Path, most: int) -> None:
        """Run an edit with too little memory, then without a limit."""
        assert most > 0
        name = f"memory {self.count('memory') + 1}"
        limit = int(self.rng.uniform(0.02, 1.0) * (self.whole.peak_bytes - _read_mapped_bytes("VmSize")))
        attempt = run_edit(build_arguments(folder, self.steps, self.frames), memory=limit)
        self.record_end("memory", name, attempt, f"{limit / MEGABYTE:.0f} MB more than the libraries")
        self.check_after(name, folder)
        finished = self.read_progress(folder)
        if attempt.code:
            self.finish(name, folder, finished, {})
        else:
            self.compare(name, folder)

    def record_end(self, kind: str, name: str, attempt: Attempt, limit: str) -> None:
        """Record how a limited edit ended: finished, with one line and exit code 2, or ended by a library."""
        stage = attempt.events[-1].stage
        error = next((line for line in attempt.errors if line.startswith("error: ")), "")
        if any(line.startswith("Traceback") for line in attempt.errors):
            self.fault(name, f"a traceback on the terminal: {attempt.errors[-1]}")
        if attempt.code == 0:
            outcome = "finished within the limit"
        elif attempt.code == 2 and error:
            outcome = f"exit code 2 in {stage}"
        elif attempt.code < 0 or not error:
            outcome = f"ended by a native library in {stage}"
        else:
            outcome = f"exit code {attempt.code} in {stage}"
            self.fault(name, f"exit code {attempt.code}: {error}")
        self.tally.counts[kind][outcome] += 1
        print(f"{name}: {limit}: {outcome}: {error or attempt.errors[-1:]}", flush=True)


def render_page(tally: Tally, command: str, seconds: float) -> str:
    """Render docs/benchmarks/faults.md."""
    totals = {kind: sum(counts.values()) for kind, counts in tally.counts.items()}
    lines = [
        "# Faults",
        "",
        f"`{command}`, two CPU cores, no GPU, 2026-11-29, {seconds / 60:.0f} minutes: {totals['kills']} kills, {totals['full disk']} full",
        f"disks and {totals['memory']} memory limits in {tally.edits} edits.",
        "",
        "After each fault every file under its final name opens completely, and the source files are unchanged. The resumed edits end with",
        "the LoRA bytes and the result frames of the undisturbed edit, and repeat no finished training or sampling.",
        "",
        f"Violations: {len(tally.faults)}. Edits killed between the output and the record that it is theirs, which needed `--overwrite`: "
        f"{tally.overwrites}.",
        "",
        *(f"- {text}" for text in tally.faults),
        *([""] if tally.faults else []),
    ]
    titles = (("kills", "stage of the kill"), ("full disk", "end with a full disk"), ("memory", "end with limited memory"))
    for kind, title in titles:
        rows = sorted(tally.counts[kind].items(), key=lambda item: (STAGES.index(item[0]) if item[0] in STAGES else 99, item[0]))
        lines += [f"| {title} | count |", "|---|---|", *(f"| {name} | {count} |" for name, count in rows), ""] if rows else []
    return "\n".join(lines)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--full-disk", type=int, default=0)
    parser.add_argument("--memory-limits", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started = time.monotonic()
    import_libraries()
    with tempfile.TemporaryDirectory() as name:
        os.environ["LORA_EDIT_CACHE"] = f"{name}/user-cache"
        benchmark = Benchmark(Path(name), args.seed, args.steps, args.frames)
        command = " ".join(["python benchmarks/faults.py", *sys.argv[1:]]).split(" --page")[0]

        def write_page() -> None:
            if args.page:
                args.page.write_text(render_page(benchmark.tally, command, time.monotonic() - started), "utf-8")

        benchmark.run(args.kills, args.full_disk, args.memory_limits, write_page)
        print(render_page(benchmark.tally, command, time.monotonic() - started))
    return 1 if benchmark.tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
