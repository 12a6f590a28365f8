"""Readers of public benchmarks, on small generated files with the same layout."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.pictures import still
from lora_edit.errors import SettingsError
from lora_edit.evaluation.benchmarks import (
    BENCHMARKS,
    read_davis_edit_cases,
    read_five_cases,
    read_genprop_cases,
    read_i2vedit_cases,
    read_vpbench_cases,
)
from lora_edit.evaluation.manifest import Case, read_cases, write_cases
from lora_edit.masks.files import read_mask
from lora_edit.types import Size, Video
from lora_edit.video.write import write_video


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def save_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_i2vedit(tmp_path: Path) -> None:
    for item in (2, 10):
        folder = tmp_path / f"item{item}" / "source_and_edits"
        folder.mkdir(parents=True)
        write_video(folder / "source.mp4", Video(still(12), Fraction(4), tuple(i / 4 for i in range(12))))
        touch(folder / "red hair.png", folder / "necklace.jpg", folder.parent / "attention_store/clip_0/000.pt")
    config = "data_params:\n  video_path: /datasets/svdedit/item2/source.mp4\n  start_t: {}\n  end_t: {}\n"
    (tmp_path / "item2/config_single_chunk.yaml").write_text(config.format(0, 1))
    (tmp_path / "item2/config_multi_chunks.yaml").write_text(config.format(0.5, 2.5))
    cases = list(read_i2vedit_cases(tmp_path))
    assert [case.id for case in cases] == ["item2-necklace", "item2-red_hair", "item10-necklace", "item10-red_hair"]
    assert [(case.start, case.frames) for case in cases] == [(2, 8), (2, 8), (0, None), (0, None)]
    assert cases[1].first_frame == tmp_path / "item2/source_and_edits/red hair.png"
    for end in (-1, 99):
        (tmp_path / "item10/source_and_edits/config_multi_chunks.yaml").write_text(config.format(1, end))
        assert [(case.start, case.frames) for case in read_i2vedit_cases(tmp_path)][-1] == (4, None if end == -1 else 8)
    write_cases(tmp_path / "cases.jsonl", cases)
    assert len(read_cases(tmp_path / "cases.jsonl")) == 4


def test_genprop(tmp_path: Path) -> None:
    folder = tmp_path / "test-samples"
    touch(folder / "014.mp4", folder / "014.png", folder / "002.mp4", folder / "002.png", folder / "alone.mp4")
    cases = list(read_genprop_cases(tmp_path))
    assert cases == [Case(id=n, source=folder / f"{n}.mp4", first_frame=folder / f"{n}.png") for n in ("002", "014")]


def test_davis_edit(tmp_path: Path) -> None:
    prompts = {"bear": {"original": "a bear", "similar": "a panda", "changing": "a rabbit"}}
    (tmp_path / "edited_video_caption_dict_text.json").write_text(json.dumps(prompts))
    for index in range(2):
        labels = np.zeros((8, 10, 3), np.uint8)
        labels[2:4, index : index + 2], labels[6, 6] = (128, 0, 0), (0, 0, 64)
        save_picture(tmp_path / f"JPEGImages/bear/{index:05d}.jpg", labels)
        save_picture(tmp_path / f"Annotations/bear/{index:05d}.png", labels)
    touch(tmp_path / "Annotations/bear/Thumbs.db", tmp_path / "ReferenceImages/similar/bear.png")
    (case,) = read_davis_edit_cases(tmp_path, tmp_path / "edited", tmp_path / "masks", "changing")
    assert (case.id, case.prompt, case.source) == ("bear-changing", "a rabbit", tmp_path / "JPEGImages/bear")
    assert case.first_frame == tmp_path / "edited/bear-changing.png"
    assert case.mask is not None
    mask = read_mask(case.mask, 2, Size(8, 10)).frames
    assert mask.sum().item() == 10
    assert mask[1, 2:4, 1:3].all()
    write_cases(tmp_path / "cases.jsonl", [case])
    with pytest.raises(SettingsError, match=r"bear-changing\): first_frame .*edited/bear-changing\.png does not exist"):
        read_cases(tmp_path / "cases.jsonl")


def test_vpbench(tmp_path: Path) -> None:
    labels = np.zeros((9, 8, 10), np.uint8)
    labels[2:6, 1:3, 1:3], labels[:, 5:, 5:] = 2, 1
    for part, name in (("videovo", "000005000123"), ("pexels", "000000000007_852038")):
        archive = tmp_path / "video_inpainting" / part / name / "all_masks.npz"
        archive.parent.mkdir(parents=True)
        np.savez_compressed(archive, labels)
    (tmp_path / "our_video_edit.csv").write_text(
        "path,mask_id,start_frame,end_frame,fps,Edited_video_caption,Edited_image_caption,Editing_instruction\n"
        '000005000123.0.mp4,2,2,6,25,"a cat, sitting",a cat,make it a cat\n'
        "000000000007_852038.mp4,1,0,9,30,a dog,a dog,make it a dog\n"
    )
    first, second = read_vpbench_cases(tmp_path, tmp_path / "edited", tmp_path / "masks")
    assert first.source == tmp_path / "videovo/raw_video/000005000/000005000123.0.mp4"
    assert second.source == tmp_path / "pexels/pexels/raw_video/000000000/000000000007_852038.mp4"
    assert (first.id, first.prompt, first.start, first.frames) == ("000005000123-2", "a cat, sitting", 2, 4)
    assert first.mask is not None
    assert read_mask(first.mask, 4, Size(8, 10)).frames.flatten(1).sum(1).tolist() == [4] * 4
    (tmp_path / "video_inpainting/pexels/000000000007_852038/all_masks.npz").unlink()
    with pytest.raises(SettingsError, match=r"video_inpainting\.zip"):
        list(read_vpbench_cases(tmp_path, tmp_path, tmp_path / "masks"))


def test_five(tmp_path: Path) -> None:
    entry = {
        "video_name": "0001_bus",
        "target_prompt": "a [red] bus",
        "source_prompt": "a bus",
        "save_dir": "1_bus",
        "editing_type_id": "1",
    }
    for number, entries in ((2, [entry]), (1, [entry, entry | {"video_name": "0002_girl-dog"}])):
        path = tmp_path / f"edit_prompt/edit{number}_FiVE.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(entries))
    region = np.zeros((16, 16), np.uint8)
    region[:8] = 255
    save_picture(tmp_path / "bmasks/0001_bus/00001.jpg", region)
    one, two, three = read_five_cases(tmp_path, tmp_path / "edited")
    assert [case.id for case in (one, two, three)] == [
        "edit1_FiVE-000-0001_bus",
        "edit1_FiVE-001-0002_girl-dog",
        "edit2_FiVE-000-0001_bus",
    ]
    assert (one.prompt, one.source, two.mask) == ("a red bus", tmp_path / "images/0001_bus", None)
    assert one.mask is not None
    assert torch.equal(read_mask(one.mask, 1, Size(16, 16)).frames[0], torch.from_numpy(region > 0))


def test_unrelated_folder_raises(tmp_path: Path) -> None:
    num_extra_arguments = {"davis-edit": 2, "vpbench": 2, "five": 1}
    for name, read_benchmark in BENCHMARKS.items():
        with pytest.raises(SettingsError, match="give the folder into which the benchmark was downloaded"):
            list(read_benchmark(tmp_path, *[tmp_path] * num_extra_arguments.get(name, 0)))


def test_unsupported_benchmark_version_raises(tmp_path: Path) -> None:
    (tmp_path / "edit_prompt").mkdir()
    (tmp_path / "edit_prompt/edit1_FiVE.json").write_text('[{"video": "0001_bus"}]')
    with pytest.raises(SettingsError, match="without video_name"):
        list(read_five_cases(tmp_path, tmp_path))
