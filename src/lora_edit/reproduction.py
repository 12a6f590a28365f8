"""The record by which a result is recomputed and compared: hashes of its input, LoRA, generated clip and frames, in the manifest."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lora_edit.config import EditSettings, dump_toml
from lora_edit.devices import get_device_name, pick_device
from lora_edit.errors import RunError
from lora_edit.loras.extra_loras import WeightedLoraPaths
from lora_edit.models.runtime.encoding_cache import DiskCache, compute_environment_key
from lora_edit.provenance.content_hash import hash_file
from lora_edit.run import LIBRARIES, Run
from lora_edit.types import hash_content

RECORD_KEY = "reproduction"
"""The record's entry in the manifest."""

_CACHE_MARGIN = 1 << 20


@dataclass(frozen=True)
class ResultRecord:
    """What determined the run's own result, and hashes of its stages.

    `seed`, `first_frame`, `loras` and `model` are those of the request; empty where they were the run's own. `loras_used` are the hashes of
    the files by name, `generated` is that of the model's output, `frames` are those of the result's frames. `environment` gives versions,
    machine and threads, with which the bytes may differ.
    """

    seed: int
    first_frame: str
    loras: list[list[Any]] | None
    model: str
    settings: str
    inputs: str
    loras_used: dict[str, str]
    generated: str
    frames: list[str]
    environment: dict[str, str]


@dataclass(frozen=True)
class Reproduction:
    """The result of a comparison: what differs, first stage first, and how the environment differs from the recorded one."""

    num_frames: int
    differences: tuple[str, ...]
    environment_differences: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        """Whether everything was computed again with the same bytes."""
        return not self.differences


def build_record(
    run: Run,
    settings: EditSettings,
    request: Mapping[str, Any],
    inputs: str,
    extra_loras: WeightedLoraPaths,
    pixels: torch.Tensor,
    frames: torch.Tensor,
) -> ResultRecord:
    """Build the record of a result: `pixels` `[3, T, h, w]` from the model, `frames` `[T, H, W, 3]` uint8; `inputs` is the clip's hash."""
    return ResultRecord(
        **request,
        settings=hash_content(dump_toml(settings)),
        inputs=inputs,
        loras_used=hash_loras([*run.list_lora_files(), *(Path(file) for file, _ in extra_loras)]),
        generated=hash_content(pixels),
        frames=[hash_content(frame)[:16] for frame in frames],
        environment=describe_environment(),
    )


def describe_replacements(first_frame: Path | None, loras: WeightedLoraPaths | None, model: str | None) -> dict[str, Any]:
    """Describe what a request replaces of the run's own, as fields of `ResultRecord`; None where it keeps the run's own."""
    return {
        "first_frame": str(first_frame.absolute()) if first_frame else "",
        "loras": None if loras is None else [[str(Path(file).absolute()), strength] for file, strength in loras],
        "model": model or "",
    }


def hash_loras(files: Sequence[Path]) -> dict[str, str]:
    """Hash LoRA files, by name."""
    return {file.name: hash_file(file) for file in files}


def describe_environment() -> dict[str, str]:
    """Describe what can change the last bits of a result: versions, machine, device, number of threads."""
    return {
        **{name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": get_device_name(pick_device()),
        "threads": str(torch.get_num_threads()),
    }


def read_record(run: Run) -> ResultRecord:
    """Read the record of the run's own result. Raises `RunError` if the run has no result, or one without a valid record."""
    entry = run.read_manifest().get(RECORD_KEY)
    remedy = f"generate the result again with `lora-edit generate {run.folder}`, or finish the edit"
    if entry is None:
        raise RunError(f"{run.manifest_file}: has no hashes of a finished result to compare with; {remedy}")
    try:
        return ResultRecord(**entry)
    except TypeError as error:
        raise RunError(f"{run.manifest_file}: the hashes of the result are damaged ({error}); {remedy}") from error


def read_num_threads(folder: Path) -> int | None:
    """Read the number of threads that computed the result of a run; None if it is not recorded. Raises `RunError` as `read_record` does."""
    threads = read_record(Run(folder)).environment.get("threads", "")
    return int(threads) if threads.isdecimal() and int(threads) else None


def record_to_entry(record: ResultRecord) -> dict[str, Any]:
    """Convert a record to its entry in the manifest."""
    return {RECORD_KEY: asdict(record)}


def compare_files(recorded: ResultRecord, settings: EditSettings, inputs: str, loras: Mapping[str, str]) -> list[str]:
    """Compare what the computation starts from: settings, input and LoRA files; returns the differences."""
    differences = (
        ["the run's settings (edit.toml) are not those of the result"] if hash_content(dump_toml(settings)) != recorded.settings else []
    )
    if inputs != recorded.inputs:
        differences.append("the stored input is not that of the result")
    for name in sorted({*loras, *recorded.loras_used}):
        if loras.get(name) != recorded.loras_used.get(name):
            differences.append(f"the LoRA {name} is not that of the result")
    return differences


def compare_result(recorded: ResultRecord, pixels: torch.Tensor, frames: torch.Tensor) -> list[str]:
    """Compare what was computed again, stage by stage; returns the differences."""
    differences = ["the generated clip differs, before compositing"] if hash_content(pixels) != recorded.generated else []
    if len(frames) != len(recorded.frames):
        return [*differences, f"the result has {len(frames)} frames instead of {len(recorded.frames)}"]
    numbers = [
        number for number, (frame, value) in enumerate(zip(frames, recorded.frames, strict=True)) if hash_content(frame)[:16] != value
    ]
    if numbers:
        differences.append(f"{len(numbers)} of {len(frames)} frames differ, the first of them frame {numbers[0]}")
    return differences


def compare_environments(recorded: ResultRecord) -> tuple[str, ...]:
    """Compare the present environment with the recorded one; returns the differences."""
    present = describe_environment()
    return tuple(
        f"{name} is {present.get(name, 'missing')}, and was {recorded.environment.get(name, 'missing')}"
        for name in sorted({*present, *recorded.environment})
        if present.get(name) != recorded.environment.get(name)
    )


class GeneratedClipCache:
    """The model's output in a run folder, from its sampling until its result is written: a resumed run need not sample again."""

    def __init__(self, run: Run, *parts: str) -> None:
        self.key = hash_content(compute_environment_key(pick_device()), *parts, str(torch.get_num_threads()))
        self.folder, self.log = run.folder / "cache", run.log

    def get(self) -> torch.Tensor | None:
        """Return the pixels `[3, T, h, w]`; None if there are none, or damaged ones."""
        return self._open(0).get(self.key)

    def put(self, pixels: torch.Tensor) -> None:
        """Keep the pixels in place of any earlier ones. A full disk is logged and not an error."""
        self._open(pixels.nbytes).put(self.key, pixels)

    def clear(self) -> None:
        """Remove the pixels."""
        self._open(0).remove(self.key)

    def _open(self, num_bytes: int) -> DiskCache:
        return DiskCache(self.folder, num_bytes + _CACHE_MARGIN, self.log)
