"""The run folder: input, settings, checkpoints, results and log of one edit, so that it can be stopped, resumed and repeated."""

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
        """Resolved settings."""
        return self.folder / "edit.toml"

    @property
    def manifest_file(self) -> Path:
        """Versions, hashes, seeds, timings, memory."""
        return self.folder / "manifest.json"

    def lora_file(self, part: str = "") -> Path:
        """Path of the trained LoRA. `part` names the expert of a model with several."""
        return self.folder / "lora" / ("-".join(filter(None, ("edit", part))) + ".safetensors")

    def list_lora_files(self) -> list[Path]:
        """List the trained LoRAs, sorted by name."""
        return sorted((self.folder / "lora").glob("edit*.safetensors"))

    def checkpoint_file(self, part: str = "") -> Path:
        """Path of the training state, unfinished or finished. `part` names the expert of a model with several."""
        return self.folder / "checkpoints" / ("-".join(filter(None, ("training", part))) + ".pt")

    @property
    def log_file(self) -> Path:
        """Log with time stamps."""
        return self.folder / "log.txt"

    def read_settings(self) -> EditSettings:
        """Read the settings of the run. Raises `RunError` if the folder is not a run folder."""
        if not self.settings_file.is_file():
            raise RunError(f"{self.folder}: not a run folder (edit.toml is missing); create one with `lora-edit new`")
        return resolve_settings(read_toml(self.settings_file))

    def replace_settings(self, settings: EditSettings) -> None:
        """Replace the settings. The previous ones stay beside them as `edit-N.toml`."""
        number = 1
        while (backup := self.folder / f"edit-{number}.toml").exists():
            number += 1
        write_atomically(backup, self.settings_file.read_text("utf-8"))
        write_atomically(self.settings_file, dump_toml(settings))
        self.update_manifest(seed=settings.seed)
        self.log(f"settings replaced; the previous ones are in {backup.name}")

    def read_manifest(self) -> dict[str, Any]:
        """Read the manifest; empty if there is none yet."""
        return json.loads(self.manifest_file.read_text("utf-8")) if self.manifest_file.is_file() else {}

    def update_manifest(self, **entries: Any) -> None:
        """Add or replace top-level entries of the manifest, atomically."""
        write_atomically(self.manifest_file, json.dumps({**self.read_manifest(), **entries}, indent=2, sort_keys=True) + "\n")

    def log(self, text: str) -> None:
        """Append one line with a time stamp to the log."""
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder for this process until the end of the context or of the process.

        Raises `RunError` if another process holds the lock.
        """
        with (self.folder / ".lock").open("w") as file:
            if not try_lock(file.fileno()):
                raise RunError(f"{self.folder}: another lora-edit process is working on this run; wait for it or give another --run")
            yield


def check_run_folder(folder: Path, settings: EditSettings) -> None:
    """Raise `RunError` if the folder holds an edit of another clip or with another model, or files that are not a run."""
    run = Run(folder)
    if run.settings_file.is_file():
        if _get_run_identity(run.read_settings()) != _get_run_identity(settings):
            raise RunError(f"{folder}: holds a run of another clip, range or model; give another --run or remove it")
    elif folder.exists() and (not folder.is_dir() or any(path.name != "edit.toml.part" for path in folder.iterdir())):
        raise RunError(f"{folder}: exists and is not a run folder; give another --run")


def make_run(folder: Path, settings: EditSettings) -> Run:
    """Create the folder, or reopen it for another edit of the same clip; `inputs.store_inputs` then replaces its settings.

    Raises `RunError` as `check_run_folder` does.
    """
    run = Run(folder)
    check_run_folder(folder, settings)
    if run.settings_file.is_file():
        return run
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
    """Return the settings that all edits of one run folder share."""
    video = settings.video
    return (settings.input.source, video.start, video.frames, video.fps, settings.model)


def default_run_folder(output: Path) -> Path:
    """Return the default run folder: `<output stem>.run` beside the output."""
    return output.with_name(f"{output.stem}.run")


def write_atomically(path: Path, text: str) -> None:
    """Write a text file such that an interruption leaves the old file or the new one, never a partial one."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, "utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process. Returns False if another process holds the lock."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
