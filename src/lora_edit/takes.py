"""The takes of a run: every result that it made, named by seed and edited frame, listed in the manifest and never overwritten.

The run's own `result.mp4` is the edit's; an edit with other settings moves it to `samples/` first.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lora_edit.run import Run
from lora_edit.video.settings import Codec

RESULT_FILE = "result.mp4"
"""The run's own result; its lossless frames lie in `result/`."""

SAMPLES_FOLDER = "samples"


@dataclass(frozen=True)
class GenerationRequest:
    """What a generation was asked for: the seed, and what differs from the run's own edit, by the names of files."""

    seed: int
    first_frame: str = ""
    loras: tuple[str, ...] = ()
    model: str = ""

    @property
    def title(self) -> str:
        """In words."""
        parts = [f"seed {self.seed}"]
        parts += [f"first frame {self.first_frame}"] if self.first_frame else []
        parts += [f"with {', '.join(self.loras)}"] if self.loras else []
        parts += [f"by {self.model}"] if self.model else []
        return ", ".join(parts)

    @property
    def name(self) -> str:
        """As a file's name without an ending."""
        stem = re.sub(r"[^\w.-]+", "-", Path(self.first_frame).stem)
        return f"seed-{self.seed}" + (f"-first-{stem}" if stem else "")


@dataclass(frozen=True)
class Take:
    """One result: its `name` among the run's samples, the video's `file` and a `picture` of some frames, both in the run folder, and a
    hash of its pixels."""

    name: str
    file: str
    picture: str
    title: str
    result_hash: str


def list_takes(run: Run) -> list[Take]:
    """In the order in which they were made."""
    return [Take(**each) for each in run.read_manifest().get("takes", [])]


def find_sample_path(run: Run, codec: Codec, request: GenerationRequest) -> Path:
    """A free name in the run's `samples/`, with an ending that holds the codec."""
    ending = {"ffv1": ".mkv", "prores": ".mov"}.get(codec, ".mp4")
    (run.folder / SAMPLES_FOLDER).mkdir(exist_ok=True)
    return run.folder / SAMPLES_FOLDER / f"{find_free_name(run, request)}{ending}"


def find_free_name(run: Run, request: GenerationRequest) -> str:
    """The request's name, numbered from 2 where there is a take or a file of that name."""
    used = {take.name for take in list_takes(run)} | {file.stem for file in (run.folder / SAMPLES_FOLDER).glob("*")}
    name, number = request.name, 1
    while name in used:
        number += 1
        name = f"{request.name}-{number}"
    return name


def add_take(run: Run, take: Take) -> None:
    """List a take; one of the same name is replaced."""
    others = [each for each in list_takes(run) if each.name != take.name]
    run.update_manifest(takes=[asdict(each) for each in (*others, take)])


def archive_result(run: Run, result_hash: str) -> str | None:
    """Make way for a new result of the run: an earlier one goes to the samples, with its lossless frames.

    Returns the name of the take that the new one repeats pixel by pixel, which is then kept as it is; else None.
    """
    earlier = next((take for take in list_takes(run) if take.file == RESULT_FILE), None)
    if earlier is not None and earlier.result_hash == result_hash:
        return earlier.name
    if not (run.folder / RESULT_FILE).is_file():
        return None
    if earlier is None:  # a run of an earlier version, which kept no list
        earlier = Take(
            find_free_name(run, GenerationRequest(int(run.read_manifest().get("seed", 0)))), RESULT_FILE, "", "earlier result", ""
        )
    kept = run.folder / SAMPLES_FOLDER / f"{earlier.name}.mp4"
    kept.parent.mkdir(exist_ok=True)
    (run.folder / RESULT_FILE).replace(kept)
    if (run.folder / "result").is_dir():
        shutil.rmtree(kept.with_suffix(""), ignore_errors=True)
        (run.folder / "result").replace(kept.with_suffix(""))
    add_take(run, replace(earlier, file=str(kept.relative_to(run.folder))))
    return None
