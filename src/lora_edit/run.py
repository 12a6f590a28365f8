"""The run folder: everything that one edit needs, makes and learns about itself, so that it can be stopped, resumed and repeated."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lora_edit.config import EditSettings, dump_toml, read_toml, resolve_settings
from lora_edit.errors import RunError

_LIBRARIES = ("lora-edit", "torch", "diffusers", "peft", "av")


@dataclass(frozen=True)
class Run:
    """Paths inside one run folder."""

    folder: Path

    @property
    def settings_file(self) -> Path:
        """The resolved settings."""
        return self.folder / "edit.toml"

    @property
    def manifest_file(self) -> Path:
        """Versions, hashes, seeds, timings, memory."""
        return self.folder / "manifest.json"

    def lora_file(self, part: str = "") -> Path:
        """The trained LoRA; one for each expert, by name, where the model has several."""
        return self.folder / "lora" / ("-".join(filter(None, ("edit", part))) + ".safetensors")

    def list_lora_files(self) -> list[Path]:
        """Those that are trained, in the order of their names."""
        return sorted((self.folder / "lora").glob("edit*.safetensors"))

    def checkpoint_file(self, part: str = "") -> Path:
        """State of unfinished (and finished) training, likewise."""
        return self.folder / "checkpoints" / ("-".join(filter(None, ("training", part))) + ".pt")

    @property
    def log_file(self) -> Path:
        """What happened, with times."""
        return self.folder / "log.txt"

    def read_settings(self) -> EditSettings:
        """The settings the run was made with. Raises `RunError` when this is no run folder."""
        if not self.settings_file.is_file():
            raise RunError(f"{self.folder}: not a run folder (edit.toml is missing); make one with `lora-edit new`")
        return resolve_settings(read_toml(self.settings_file))

    def replace_settings(self, settings: EditSettings) -> None:
        """Go on with other settings; the earlier ones are kept beside them, numbered."""
        number = 1
        while (kept := self.folder / f"edit-{number}.toml").exists():
            number += 1
        write_atomically(kept, self.settings_file.read_text("utf-8"))
        write_atomically(self.settings_file, dump_toml(settings))
        self.update_manifest(seed=settings.seed)
        self.log(f"other settings; the earlier ones are in {kept.name}")

    def read_manifest(self) -> dict[str, Any]:
        """The manifest so far; empty when none was written."""
        return json.loads(self.manifest_file.read_text("utf-8")) if self.manifest_file.is_file() else {}

    def update_manifest(self, **entries: Any) -> None:
        """Add or replace top-level entries, atomically."""
        write_atomically(self.manifest_file, json.dumps({**self.read_manifest(), **entries}, indent=2, sort_keys=True) + "\n")

    def log(self, text: str) -> None:
        """Append one line with the time."""
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one process; the lock ends with the process, however it ends. Raises `RunError` when another holds it."""
        with (self.folder / ".lock").open("w") as file:
            if not try_lock(file.fileno()):
                raise RunError(f"{self.folder}: another lora-edit process is working on this run; wait for it or give another --run")
            yield


def make_run(folder: Path, settings: EditSettings) -> Run:
    """Create the folder, or open it again for an edit of the same clip; its settings then change with `take_settings`.

    Raises `RunError` when it holds an edit of another clip or by another model, or something that is no run at all.
    """
    run = Run(folder)
    if run.settings_file.is_file():
        if _get_run_identity(run.read_settings()) != _get_run_identity(settings):
            raise RunError(f"{folder}: holds a run of another clip, range or model; give another --run or remove it")
        return run
    if folder.exists() and (not folder.is_dir() or any(p.name != "edit.toml.part" for p in folder.iterdir())):
        raise RunError(f"{folder}: exists and is not a run folder; give another --run")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(run.settings_file, dump_toml(settings))
    run.update_manifest(
        versions={name: version(name) for name in _LIBRARIES},
        python=sys.version.split()[0],
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        seed=settings.seed,
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    return run


def _get_run_identity(settings: EditSettings) -> tuple[object, ...]:
    """What of an edit's settings a run folder belongs to."""
    video = settings.video
    return (settings.input.source, video.start, video.frames, video.fps, settings.model)


def default_run_folder(output: Path) -> Path:
    """The run folder of an edit that names none: `<output stem>.run` beside the output."""
    return output.with_name(f"{output.stem}.run")


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a kill leaves the old one or the new one, never half."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, "utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process; False where another process holds it."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
