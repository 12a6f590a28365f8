"""Folders of numbered PNG frames: how run folders keep clips without loss."""

from __future__ import annotations

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch

from lora_edit.errors import VideoError

_FRAME_NAME = re.compile(r"\d{5,}\.png")
_WORKERS = 4  # OpenCV releases the interpreter lock while it packs a PNG


def save_frames(folder: Path, frames: torch.Tensor, alpha: torch.Tensor | None = None) -> None:
    """Write `[T, H, W, 3]` uint8 as `00000.png`, ... in `folder`, whole or not at all.

    `alpha` `[T, H, W]` uint8 makes them RGBA. Frames of an earlier `save_frames` are replaced; a folder that holds anything else
    raises `VideoError`.
    """
    _refuse_foreign_files(folder)
    partial = folder.with_name(f".{folder.name}-{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_WORKERS) as pool:
            jobs = [pool.submit(_write_png, partial / f"{i:05d}.png", _combine_alpha(frames, alpha, i)) for i in range(len(frames))]
        for job in jobs:
            job.result()
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    except OSError as error:
        raise VideoError(f"{folder}: frames cannot be written ({error.strerror}); choose a writable folder with free space") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_frames(folder: Path) -> torch.Tensor:
    """The `[T, H, W, 3]` uint8 frames that `save_frames` wrote (alpha is left out). Raises `VideoError` on gaps and damage."""
    names = sorted((path for path in folder.glob("*.png") if _FRAME_NAME.fullmatch(path.name)), key=lambda path: int(path.stem))
    if not names:
        raise VideoError(f"{folder}: no frames named 00000.png, 00001.png, ...; make them again")
    for number, path in enumerate(names):
        if int(path.stem) != number:
            raise VideoError(f"{folder}: frame {number:05d}.png is missing; make the frames again")
    first = _read_png(names[0])
    frames = torch.empty((len(names), *first.shape), dtype=torch.uint8)

    def load(number: int) -> None:
        picture = _read_png(names[number])
        if picture.shape != first.shape:
            raise VideoError(f"{names[number]}: its size differs from {names[0].name}; make the frames again")
        frames[number] = torch.from_numpy(picture)

    with ThreadPoolExecutor(_WORKERS) as pool:
        for _ in pool.map(load, range(len(names))):
            pass
    return frames


def holds_only_frames(folder: Path) -> bool:
    """Whether everything in `folder` is a frame that `save_frames` may replace."""
    return all(_FRAME_NAME.fullmatch(path.name) for path in folder.iterdir())


def encode_png(image: np.ndarray) -> bytes:
    """`[H, W, 3 or 4]` uint8 RGB(A) as a PNG file's bytes, packed fast rather than small."""
    order = cv2.COLOR_RGB2BGR if image.shape[-1] == 3 else cv2.COLOR_RGBA2BGRA
    done, packed = cv2.imencode(".png", cv2.cvtColor(image, order), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return packed.tobytes()


def _combine_alpha(frames: torch.Tensor, alpha: torch.Tensor | None, index: int) -> np.ndarray:
    rgb = frames[index]
    return (rgb if alpha is None else torch.cat([rgb, alpha[index, :, :, None]], dim=-1)).contiguous().cpu().numpy()


def _write_png(path: Path, image: np.ndarray) -> None:
    path.write_bytes(encode_png(image))


def _read_png(path: Path) -> np.ndarray:
    packed = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    picture = cv2.imdecode(packed, cv2.IMREAD_COLOR_RGB) if len(packed) else None
    if picture is None:
        raise VideoError(f"{path}: damaged PNG; make the frames again")
    return picture


def _refuse_foreign_files(folder: Path) -> None:
    if folder.is_dir() and not holds_only_frames(folder):
        raise VideoError(f"{folder}: holds files that are not numbered PNG frames; choose an empty or new folder")
    if folder.exists() and not folder.is_dir():
        raise VideoError(f"{folder}: is a file; choose a folder")
