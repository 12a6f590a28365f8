"""Fixtures and environment of all tests: no network, no display, one thread."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# One thread in each process. Small tensors gain nothing from more, and threads that share a core spin while they wait for each other:
# on two busy cores, fifty steps of the random model took 25 processor seconds with two threads and 0.9 with one.
# pytest-xdist's workers inherit the value from the process that starts them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

from lora_edit.types import Box


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep cached encodings in a temporary folder, not in the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_EDIT_CACHE", str(folder))
        yield folder / "encodings"


@pytest.fixture(scope="session", autouse=True)
def own_signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Sign results with a local certificate in a temporary folder, not with the user's."""
    folder = tmp_path_factory.mktemp("config")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_EDIT_CONFIG", str(folder))
        for name in ("LORA_EDIT_SIGN_CERT", "LORA_EDIT_SIGN_KEY", "LORA_EDIT_TIMESTAMP_URL"):
            patch.delenv(name, raising=False)
        yield folder


@pytest.fixture(scope="session", autouse=True)
def motion_once() -> Iterator[None]:
    """Compute the motion of a clip and the track of a box once for all edits of that clip: they take most of the time of a small edit."""
    from lora_edit.masks import edit_region, moving_boxes
    from lora_edit.masks.edit_region import BoxTrack, track_box
    from lora_edit.propagation import predict
    from lora_edit.propagation.motion import Motion, estimate_motion

    motions: dict[tuple[object, ...], list[Motion]] = {}
    tracks: dict[tuple[object, ...], BoxTrack] = {}

    def estimated(*pictures: np.ndarray) -> list[Motion]:
        key = tuple((picture.shape, picture.tobytes()) for picture in pictures)
        if key not in motions:
            motions[key] = list(estimate_motion(*pictures))
        return motions[key]

    def tracked(frames: torch.Tensor, changed: np.ndarray, box: Box, on_frame: Callable[[int, int], None]) -> BoxTrack:
        key = frames.shape, frames.numpy().tobytes(), changed.tobytes(), box
        if key not in tracks:
            tracks[key] = track_box(frames, changed, box, lambda done, total: None)
        for number in range(len(frames)):
            on_frame(number + 1, len(frames))
        return tracks[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "estimate_motion", estimated)
        for module in (edit_region, moving_boxes):
            patch.setattr(module, "track_box", tracked)
        yield


@pytest.fixture
def single_thread() -> Iterator[None]:
    """One torch thread: the order of summation is then fixed, and golden numbers do not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Florence-2 that names one of three colours for a frame."""
    from tiny_florence import save_tiny_florence

    return save_tiny_florence(tmp_path_factory.mktemp("florence"))


@pytest.fixture(scope="session")
def ended_process() -> int:
    """The identifier of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
