"""Folders of numbered PNG frames, the lossless format of clips in run folders."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch

from lora_edit.atomic_files import replace_folder
from lora_edit.errors import VideoError
from lora_edit.types import Finish
from lora_edit.video.images import require_file

_FRAME_NAME = re.compile(r"\d{5,}\.png")
_WORKERS = 4  # OpenCV releases the interpreter lock while it encodes a PNG


def save_frames(folder: Path, frames: torch.Tensor, alpha: torch.Tensor | None = None, finish: Finish | None = None) -> None:
    """Write frames `[T, H, W, 3]` uint8 as `00000.png`, ... to `folder`, all or none of them.

    With `alpha` `[T, H, W]` uint8 the files are RGBA. Frames of an earlier `save_frames` are replaced. `finish` receives the complete
    folder before it gets its name. Raises `VideoError` when the folder holds any other file, or cannot be written.
    """
    _refuse_foreign_files(folder)
    try:
        with replace_folder(folder) as partial, ThreadPoolExecutor(_WORKERS) as pool:
            futures = [pool.submit(_write_png, partial / f"{i:05d}.png", _combine_alpha(frames, alpha, i)) for i in range(len(frames))]
            for future in futures:
                future.result()
            if finish:
                finish(partial, folder)
    except OSError as error:
        raise VideoError(f"{folder}: frames cannot be written ({error.strerror}); choose a writable folder with free space") from error


def load_frames(folder: Path) -> torch.Tensor:
    """Load the frames `[T, H, W, 3]` uint8 written by `save_frames`, without alpha. Raises `VideoError` on gaps and damaged files."""
    paths = sorted((path for path in folder.glob("*.png") if _FRAME_NAME.fullmatch(path.name)), key=lambda path: int(path.stem))
    if not paths:
        raise VideoError(f"{folder}: no frames named 00000.png, 00001.png, ...; make them again")
    for index, path in enumerate(paths):
        if int(path.stem) != index:
            raise VideoError(f"{folder}: frame {index:05d}.png is missing; make the frames again")
    first = _read_png(paths[0])
    frames = torch.empty((len(paths), *first.shape), dtype=torch.uint8)

    def load(index: int) -> None:
        image = _read_png(paths[index])
        if image.shape != first.shape:
            raise VideoError(f"{paths[index]}: its size differs from {paths[0].name}; make the frames again")
        frames[index] = torch.from_numpy(image)

    with ThreadPoolExecutor(_WORKERS) as pool:
        for _ in pool.map(load, range(len(paths))):
            pass
    return frames


def holds_only_frames(folder: Path) -> bool:
    """Whether `folder` holds nothing but frames that `save_frames` may replace."""
    return all(_FRAME_NAME.fullmatch(path.name) for path in folder.iterdir())


def encode_png(image: np.ndarray) -> bytes:
    """Encode `[H, W, 3 or 4]` uint8 RGB(A) as the bytes of a PNG file, with fast compression."""
    order = cv2.COLOR_RGB2BGR if image.shape[-1] == 3 else cv2.COLOR_RGBA2BGRA
    success, encoded = cv2.imencode(".png", cv2.cvtColor(image, order), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert success
    return encoded.tobytes()


def _combine_alpha(frames: torch.Tensor, alpha: torch.Tensor | None, index: int) -> np.ndarray:
    rgb = frames[index]
    return (rgb if alpha is None else torch.cat([rgb, alpha[index, :, :, None]], dim=-1)).contiguous().cpu().numpy()


def _write_png(partial: Path, image: np.ndarray) -> None:
    partial.write_bytes(encode_png(image))


def _read_png(path: Path) -> np.ndarray:
    require_file(path)
    try:
        image = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    except (cv2.error, OSError) as error:  # also for sizes above OpenCV's limit
        raise VideoError(f"{path}: damaged PNG ({' '.join(str(error).split())}); make the frames again") from error
    if image is None:
        raise VideoError(f"{path}: damaged PNG; make the frames again")
    return image


def _refuse_foreign_files(folder: Path) -> None:
    if folder.is_dir() and not holds_only_frames(folder):
        raise VideoError(f"{folder}: holds files that are not numbered PNG frames; choose an empty or new folder")
    if folder.exists() and not folder.is_dir():
        raise VideoError(f"{folder}: is a file; choose a folder")
