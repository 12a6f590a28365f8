"""The takes of a run: all its results, named by seed and edited frame, listed in the manifest and never overwritten.

`result.mp4` is the result of the edit itself; an edit with other settings first moves it to `samples/`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lora_edit.atomic_files import copy_file
from lora_edit.errors import RunError
from lora_edit.provenance.content_hash import hash_file
from lora_edit.provenance.signing import sidecar_path
from lora_edit.run import DAMAGED_RUN, Run
from lora_edit.video.settings import Codec

RESULT_FILE = "result.mp4"
"""Result of the edit; its lossless frames are in `result/`."""

SAMPLES_FOLDER = "samples"


@dataclass(frozen=True)
class GenerationRequest:
    """Seed of a generation, and file names of what differs from the edit of the run."""

    seed: int
    first_frame: str = ""
    loras: tuple[str, ...] = ()
    model: str = ""

    @property
    def title(self) -> str:
        """Description for people."""
        parts = [f"seed {self.seed}"]
        parts += [f"first frame {self.first_frame}"] if self.first_frame else []
        parts += [f"with {', '.join(self.loras)}"] if self.loras else []
        parts += [f"by {self.model}"] if self.model else []
        return ", ".join(parts)

    @property
    def name(self) -> str:
        """File name without suffix."""
        stem = re.sub(r"[^\w.-]+", "-", Path(self.first_frame).stem)
        return f"seed-{self.seed}" + (f"-first-{stem}" if stem else "")


@dataclass(frozen=True)
class Take:
    """One result: its `name` among the samples of the run, the video `file` and a `picture` of some frames, both relative to the run
    folder, and a hash of its pixels."""

    name: str
    file: str
    picture: str
    title: str
    result_hash: str


def list_takes(run: Run) -> list[Take]:
    """List the takes in order of creation. Raises `RunError` when the manifest is damaged."""
    try:
        return TypeAdapter(list[Take]).validate_python(run.read_manifest().get("takes", []))
    except ValidationError as error:
        raise RunError(f"{run.manifest_file}: takes: {error.errors()[0]['msg'].lower()}; {DAMAGED_RUN}") from error


def find_sample_path(run: Run, codec: Codec, request: GenerationRequest) -> Path:
    """Find an unused path in `samples/` of the run, with a suffix that can hold the codec."""
    suffix = {"ffv1": ".mkv", "prores": ".mov"}.get(codec, ".mp4")
    (run.folder / SAMPLES_FOLDER).mkdir(exist_ok=True)
    return run.folder / SAMPLES_FOLDER / f"{find_free_name(run, request)}{suffix}"


def find_free_name(run: Run, request: GenerationRequest) -> str:
    """Find an unused name: that of the request, numbered from 2 if a take or a file has it."""
    used_names = {take.name for take in list_takes(run)} | {file.stem for file in (run.folder / SAMPLES_FOLDER).glob("*")}
    name, number = request.name, 1
    while name in used_names:
        number += 1
        name = f"{request.name}-{number}"
    return name


def add_take(takes: Sequence[Take], take: Take) -> list[Take]:
    """Add a take to a list, in place of one of the same name."""
    return [*(each for each in takes if each.name != take.name), take]


def takes_to_entry(takes: Sequence[Take]) -> dict[str, Any]:
    """Convert a list of takes to its entry in the manifest."""
    return {"takes": [asdict(each) for each in takes]}


def archive_result(run: Run, result_hash: str) -> str | None:
    """Move the previous result of the edit with its lossless frames to the samples, before a new one replaces it.

    If the new result with `result_hash` has the same pixels, nothing is moved, and the name of the previous take is returned; else None.
    After an interruption, the next call does the rest. The manifest marks a result that is being written, which is not kept.
    """
    earlier = next((take for take in list_takes(run) if take.file == RESULT_FILE), None)
    if earlier is not None and earlier.result_hash == result_hash:
        return earlier.name
    if not (run.folder / RESULT_FILE).is_file() or (earlier is None and not has_finished_result(run)):
        return None
    if earlier is None:  # a run of a version without this list, or one that lost its manifest
        earlier = Take(
            find_free_name(run, GenerationRequest(int(run.read_manifest().get("seed", 0)))), RESULT_FILE, "", "earlier result", ""
        )
    archive = run.folder / SAMPLES_FOLDER / f"{earlier.name}.mp4"
    archive.parent.mkdir(exist_ok=True)
    if (run.folder / "result").is_dir():
        shutil.rmtree(archive.with_suffix(""), ignore_errors=True)
        (run.folder / "result").replace(archive.with_suffix(""))
        if (sidecar := sidecar_path(run.folder / "result")).is_file():
            sidecar.replace(sidecar_path(archive.with_suffix("")))
    copy_file(run.folder / RESULT_FILE, archive)  # both names stand until the manifest lists the new one
    takes = add_take(list_takes(run), replace(earlier, file=str(archive.relative_to(run.folder))))
    run.update_manifest(**takes_to_entry(takes), unfinished_result=True)
    (run.folder / RESULT_FILE).unlink()
    return None


def has_finished_result(run: Run) -> bool:
    """Whether the result of the edit stands, and is not one whose writing was interrupted."""
    return (run.folder / RESULT_FILE).is_file() and not run.read_manifest().get("unfinished_result")


def claim_output(run: Run, output: Path) -> None:
    """Record that this unfinished run wrote the file `output`, so that a resumed call may replace it."""
    if output.is_file():
        run.update_manifest(unfinished_output={"path": str(output.absolute()), "hash": hash_file(output)})


def owns_output(run: Run, output: Path) -> bool:
    """Whether `output` is the file that an interrupted call on this run wrote, unchanged."""
    claim = run.read_manifest().get("unfinished_output")
    return claim is not None and output.is_file() and claim == {"path": str(output.absolute()), "hash": hash_file(output)}
