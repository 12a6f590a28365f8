"""Readers of public benchmarks on disk: one function per benchmark, which yields its cases (`manifest.py`) in order.

    write_cases(Path("cases.jsonl"), read_genprop_cases(Path("GenProp-Data")))

Only the I2VEdit set and GenProp-Data include edited first frames. The others include a prompt; their edited first frames are expected in
`first_frames`, as `ID.png`, made with any image editor, and `read_cases` reports the missing ones. No function downloads anything. Each
docstring names the source of the layout. These benchmarks take every n-th frame of a clip for models with few frames; cases contain the
range with all its frames.
"""

from __future__ import annotations

import csv
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lora_edit.errors import SettingsError
from lora_edit.evaluation.manifest import Case
from lora_edit.masks.files import save_mask
from lora_edit.types import EditMask
from lora_edit.video.images import IMAGE_SUFFIXES, list_images, load_folder
from lora_edit.video.read import probe_video


def read_i2vedit_cases(root: Path) -> Iterator[Case]:
    """Read the test set of I2VEdit, on which the paper's table 1 was measured: a case for every edited picture of every item.

    `itemN/source_and_edits/` contains `source.mp4` and the edits as pictures; a `config_*.yaml`, in that folder or one folder up, has the
    range as `start_t` and `end_t` in seconds, -1 for the end (huggingface.co/datasets/Vicky0522/I2VEdit-pretrained-videos, its file
    listings; I2VEdit `i2vedit/data.py` for seconds to frames). The paths in the configurations are those of their author's machine and
    are ignored. Of two configurations, the one for several chunks is used, which has the longer range. Raises `SettingsError` when there
    is no item, `VideoError` when a source is unreadable.
    """
    items = sorted(root.glob("item*/source_and_edits"), key=lambda folder: _parse_number(folder.parent.name))
    for folder in _require_files(items, root, "item*/source_and_edits/source.mp4"):
        source = folder / "source.mp4"
        start, frames = _read_i2vedit_range(folder, source)
        for edit in sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES):
            yield Case(id=_sanitize_id(f"{folder.parent.name}-{edit.stem}"), source=source, first_frame=edit, start=start, frames=frames)


def read_genprop_cases(root: Path) -> Iterator[Case]:
    """Read GenProp-Data: pairs of a clip `xxx.mp4` and its edited first frame `xxx.png`, in `test-samples/`.

    From huggingface.co/datasets/Shaldon/GenProp-Data (`README.md` and file listing; CC-BY-NC 4.0). Raises `SettingsError` when there is
    no pair.
    """
    pairs = [clip for clip in sorted(root.rglob("*.mp4")) if clip.with_suffix(".png").is_file()]
    for clip in _require_files(pairs, root, "test-samples/xxx.mp4 beside xxx.png"):
        yield Case(id=_sanitize_id(clip.stem), source=clip, first_frame=clip.with_suffix(".png"))


def read_davis_edit_cases(
    root: Path, first_frames: Path, masks: Path, subset: Literal["similar", "changing"] = "similar"
) -> Iterator[Case]:
    """Read DAVIS-Edit: clips and masks of DAVIS with a prompt each, for edits of `similar` or of `changing` shape.

    `JPEGImages/VIDEO/` and `Annotations/VIDEO/` contain the frames, `edited_video_caption_dict_text.json` the prompts `original`,
    `similar` and `changing` of each video (github.com/AlonzoLeeeooo/StableV2V, "Details of DAVIS-Edit"; MIT). `ReferenceImages/` shows
    the object to insert instead of an edited first frame, and is ignored. DAVIS numbers its objects by colour, so black-and-white masks
    of all objects together are written to `masks`.
    """
    table = root / "edited_video_caption_dict_text.json"
    for video, prompts in _read_json(table, root).items():
        prompt = _get_value(prompts, subset, table)
        mask = masks / video
        labels = np.stack(list(load_folder(list_images(root / "Annotations" / video))))
        save_mask(mask, EditMask(torch.from_numpy(labels[..., :3].any(-1))))
        name = f"{video}-{subset}"
        source = root / "JPEGImages" / video
        yield Case(id=name, source=source, first_frame=first_frames / f"{name}.png", mask=mask, prompt=prompt)


def read_vpbench_cases(root: Path, first_frames: Path, masks: Path, table: str = "our_video_edit.csv") -> Iterator[Case]:
    """Read the editing part of VPBench (or `our_video_edit_long.csv`): clips from VideoVo and Pexels with an object's mask and a prompt.

    The table has the columns `path`, `mask_id`, `start_frame`, `end_frame` and `Edited_video_caption`. Clips are in
    `videovo/raw_video/` or, when the name does not end in `.0.mp4`, in `pexels/pexels/raw_video/`; objects are numbered in
    `video_inpainting/*/NAME/all_masks.npz` (github.com/TencentARC/VideoPainter, `README.md` "Data Download" and `evaluate/dataset.py`,
    `evaluate/eval_edit.py`, read in a fork). The object's masks are written to `masks` as pictures. The benchmark's authors
    inpainted its first frames with FLUX.1 Fill from `Edited_image_caption`.
    """
    for row in _read_rows(root / table, root):
        path, number, begin, end, prompt = (
            _get_value(row, key, root / table) for key in ("path", "mask_id", "start_frame", "end_frame", "Edited_video_caption")
        )
        name, videovo = path.split(".")[0], ".0.mp4" in path
        folder = root / "videovo/raw_video" / name[:-3] if videovo else root / "pexels/pexels/raw_video" / name[:9]
        case, start = f"{name}-{number}", int(begin)
        labels = _read_labels(root / "video_inpainting" / ("videovo" if videovo else "pexels") / name / "all_masks.npz")[start : int(end)]
        save_mask(masks / case, EditMask(torch.from_numpy(labels == int(number))))
        yield Case(
            id=case,
            source=folder / (f"{name}.0.mp4" if videovo else f"{name}.mp4"),
            first_frame=first_frames / f"{case}.png",
            mask=masks / case,
            prompt=prompt,
            start=start,
            frames=len(labels),
        )


def read_five_cases(root: Path, first_frames: Path) -> Iterator[Case]:
    """Read FiVE-Bench: six kinds of edit, each a list of clips with a prompt before and after the edit.

    `edit_prompt/editN_FiVE.json` lists objects with `video_name` and `target_prompt` (changed words in brackets); `images/VIDEO/` and
    `bmasks/VIDEO/` contain frames and masks as JPEG files of the same names (github.com/Harvard-AI-and-Robotics-Lab/FiVE-Bench,
    `README.md` and `evaluation/evaluate.py`). That script counts every mask value above 0 as the object; this package counts values
    from half brightness on, which JPEG artefacts do not reach.
    """
    for table in _require_files(sorted(root.glob("edit_prompt/edit*_FiVE.json")), root, "edit_prompt/edit1_FiVE.json"):
        for index, edit in enumerate(_read_json(table, root)):
            video, prompt = _get_value(edit, "video_name", table), _get_value(edit, "target_prompt", table)
            name = f"{table.stem}-{index:03d}-{video}"
            mask = root / "bmasks" / video
            yield Case(
                id=name,
                source=root / "images" / video,
                first_frame=first_frames / f"{name}.png",
                mask=mask if mask.is_dir() else None,
                prompt=re.sub(r"[\[\]]", "", prompt),
            )


BENCHMARKS: dict[str, Callable[..., Iterator[Case]]] = {
    "i2vedit": read_i2vedit_cases,
    "genprop": read_genprop_cases,
    "davis-edit": read_davis_edit_cases,
    "vpbench": read_vpbench_cases,
    "five": read_five_cases,
}


def _read_i2vedit_range(folder: Path, source: Path) -> tuple[int, int | None]:
    """Read the first frame and the number of frames, None for all up to the end."""
    configs = sorted([*folder.glob("config_*.yaml"), *folder.parent.glob("config_*.yaml")], key=lambda path: path.name)
    if not configs:
        return 0, None
    # Two numbers do not justify a dependency on a YAML library.
    text = configs[0].read_text("utf-8")
    begin, end = (re.search(rf"^\s*{key}:\s*(-?[\d.]+)", text, re.MULTILINE) for key in ("start_t", "end_t"))
    info = probe_video(source)
    start = int(float(begin[1]) * info.fps) if begin else 0
    if end is None or float(end[1]) < 0:
        return start, None
    stop = min(int(float(end[1]) * info.fps), info.num_frames or math.inf)
    return start, int(stop) - start


def _sanitize_id(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name)


def _parse_number(name: str) -> int:
    digits = re.search(r"\d+", name)
    return int(digits[0]) if digits else 0


def _require_files(files: list[Path], root: Path, expected: str) -> list[Path]:
    if not files:
        raise SettingsError(f"{root}: no {expected} in it; give the folder into which the benchmark was downloaded and unpacked")
    return files


def _read_json(path: Path, root: Path) -> Any:
    _require_files([path] if path.is_file() else [], root, path.name)
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise SettingsError(f"{path}: not JSON ({error}); download it again") from error


def _get_value(entry: Mapping[str, str], key: str, table: Path) -> str:
    if key not in entry:
        raise SettingsError(f"{table}: an entry without {key}; this version of the benchmark is not supported")
    return entry[key]


def _read_rows(path: Path, root: Path) -> list[dict[str, str]]:
    _require_files([path] if path.is_file() else [], root, path.name)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _read_labels(path: Path) -> np.ndarray:
    """Read the numbers of the objects, `[T, H, W]`."""
    try:
        with np.load(path) as archive:
            return np.asarray(archive["arr_0"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise SettingsError(f"{path}: has no masks ({error}); unpack the benchmark's video_inpainting.zip") from error
