"""The run folder: input, settings, checkpoints, results and log of one edit, so that it can be stopped, resumed and repeated."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lora_edit.atomic_files import is_partial, remove_abandoned_files, write_text
from lora_edit.config import EditSettings, dump_toml, read_toml, resolve_settings
from lora_edit.errors import RunError, SettingsError
from lora_edit.file_lock import read_owner, record_owner, try_lock
from lora_edit.text_files import read_json_object

DAMAGED_RUN = "put back a copy of this file, or remove the run folder and start again"
"""What to do about a damaged file of a run."""

LIBRARIES = ("lora-edit", "torch", "diffusers", "peft", "av")
"""Libraries whose versions the manifest records."""


SETTINGS_END = "# end of the settings"
SETTINGS_START = f"# The last line has to be: {SETTINGS_END}"
"""First and last line of a run's settings, by which a file that was cut off is recognised."""


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
        """Read the settings of the run. Raises `RunError` if the folder is not a run folder, or its settings are damaged."""
        if not self.settings_file.is_file():
            raise RunError(f"{self.folder}: not a run folder (edit.toml is missing); create one with `lora-edit new`")
        try:
            _check_settings_end(self.settings_file)
            return resolve_settings(read_toml(self.settings_file))
        except SettingsError as error:
            remedy = "restore it (earlier settings are in edit-N.toml), or start again with another --run"
            raise RunError(f"the run's settings are damaged: {error}; {remedy}") from error

    def replace_settings(self, settings: EditSettings) -> None:
        """Replace the settings. The previous ones stay beside them as `edit-N.toml`."""
        number = 1
        while (backup := self.folder / f"edit-{number}.toml").exists():
            number += 1
        write_text(backup, self.settings_file.read_text("utf-8"))
        write_text(self.settings_file, _format_settings(settings))
        self.update_manifest(seed=settings.seed)
        self.log(f"settings replaced; the previous ones are in {backup.name}")

    def read_manifest(self) -> dict[str, Any]:
        """Read the manifest; empty if there is none yet. Raises `RunError` if it is damaged."""
        remedy = "remove it, and the run goes on from its files without the list of its earlier results"
        return read_json_object(self.manifest_file, RunError, remedy) if self.manifest_file.exists() else {}

    def update_manifest(self, **entries: Any) -> None:
        """Add or replace top-level entries of the manifest, atomically."""
        write_text(self.manifest_file, json.dumps({**self.read_manifest(), **entries}, indent=2, sort_keys=True) + "\n")

    def log(self, text: str) -> None:
        """Append one line with a time stamp to the log."""
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder for this process until the end of the context or of the process, and remove what ended processes left there.

        Raises `RunError` if another process holds the lock, or the folder cannot be written.
        """
        owner_file = self.folder / ".owner"
        try:
            lock = try_lock(self.folder / ".lock")
        except OSError as error:
            raise RunError(
                f"{self.folder}: the run folder cannot be written ({error.strerror}); make it writable, or copy it to a writable disk"
            ) from error
        if lock is None:
            raise RunError(f"{self.folder}: {read_owner(owner_file)} is working on this run; wait for it or give another --run")
        try:
            with suppress(OSError):  # only messages need it
                record_owner(owner_file)
            remove_abandoned_files(self.folder)
            yield
        finally:
            lock.release()


def check_run_folder(folder: Path, settings: EditSettings) -> None:
    """Raise `RunError` if the folder holds an edit of another clip or with another model, or files that are not a run."""
    run = Run(folder)
    if run.settings_file.is_file():
        if _get_run_identity(run.read_settings()) != _get_run_identity(settings):
            raise RunError(f"{folder}: holds a run of another clip, range or model; give another --run or remove it")
    elif folder.exists() and (not folder.is_dir() or not all(is_partial(Path(path.name)) for path in folder.iterdir())):
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
    write_text(run.settings_file, _format_settings(settings))
    run.update_manifest(
        versions={name: version(name) for name in LIBRARIES},
        python=sys.version.split()[0],
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        seed=settings.seed,
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    return run


def _format_settings(settings: EditSettings) -> str:
    return f"{SETTINGS_START}\n{dump_toml(settings)}{SETTINGS_END}\n"


def _check_settings_end(file: Path) -> None:
    """Raise `SettingsError` for a file that was cut off between two lines, which is valid TOML with fewer settings."""
    lines = file.read_bytes().splitlines()
    if lines and lines[0] == SETTINGS_START.encode() and lines[-1] != SETTINGS_END.encode():
        raise SettingsError(f"{file}: is cut off after {len(lines)} lines")


def _get_run_identity(settings: EditSettings) -> tuple[object, ...]:
    """Return the settings that all edits of one run folder share."""
    video = settings.video
    return (settings.input.source, video.start, video.frames, video.fps, settings.model)


def default_run_folder(output: Path) -> Path:
    """Return the default run folder: `<output stem>.run` beside the output."""
    return output.with_name(f"{output.stem}.run")
