"""What the results of a run state: the region, the inputs, the model; and that nothing is signed wrongly or lost."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_edit import pipeline
from lora_edit.config import EditSettings, resolve_settings
from lora_edit.errors import SettingsError, SigningError
from lora_edit.provenance import signing
from lora_edit.provenance.content_hash import hash_file
from lora_edit.provenance.library import LibraryError
from lora_edit.provenance.verification import verify_file
from lora_edit.reporting import SilentReporter
from lora_edit.result_claim import describe_region
from lora_edit.types import EditMask, Video
from lora_edit.video.png_frames import load_frames
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video

QUICK = (
    "training.motion_steps=2",
    "training.appearance_steps=1",
    "training.batch_size=1",
    "training.recolour_variants=1",
    "generation.steps=1",
)


def test_region_by_frames_parts_and_share() -> None:
    mask = torch.zeros(5, 20, 30, dtype=torch.bool)
    mask[1:3, 4:10, 5:15] = True
    mask[2, 15:17, 20:24] = True
    mask[4, 0, 0] = True
    region = describe_region(EditMask(mask))
    assert (region.num_frames, region.width, region.height) == (5, 30, 20)
    assert region.frame_ranges == ((1, 2), (4, 4)) and region.pixel_share == round((60 + 60 + 8 + 1) / 3000, 6)
    assert region.boxes == {1: ((5, 4, 10, 6),), 2: ((5, 4, 10, 6), (20, 15, 4, 2)), 4: ((0, 0, 1, 1),)}


def test_region_of_many_frames_and_parts_stays_short() -> None:
    mask = torch.zeros(100, 40, 40, dtype=torch.bool)
    mask[:, ::4, ::4] = True
    region = describe_region(EditMask(mask))
    assert len(region.boxes) == 32 and {0, 99} <= region.boxes.keys() and set(region.boxes.values()) == {((0, 0, 37, 37),)}
    assert describe_region(EditMask(torch.zeros(2, 8, 8, dtype=torch.bool))).frame_ranges == ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`clip.mkv` of four noise frames, and its edited first frame."""
    folder = tmp_path_factory.mktemp("claimed")
    coarse = torch.randint(0, 256, (4, 6, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    frames = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2).contiguous()
    write_video(folder / "clip.mkv", Video(frames, Fraction(8), tuple(i / 8 for i in range(4))), "ffv1")
    first = frames[0].clone()
    first[12:28, 20:40] = torch.tensor([200, 30, 30], dtype=torch.uint8)
    save_image(folder / "first.png", first)
    return folder


def settings_for(folder: Path, *assignments: str) -> EditSettings:
    box = {"x": 18, "y": 10, "width": 24, "height": 20}
    files = {"source": str(folder / "clip.mkv"), "first_frame": str(folder / "first.png"), "boxes": [box]}
    return resolve_settings({"input": files, "prompt": "a secret idea"}, (*QUICK, *assignments))


def test_preview_states_source_and_region_and_nothing_private(folder: Path, tmp_path: Path) -> None:
    path = pipeline.preview(settings_for(folder), tmp_path / "preview.mp4", SilentReporter())
    report = verify_file(path, source=folder / "clip.mkv")
    assert report.is_valid and report.edit is not None and report.edit["model"]["name"] == "prediction without a diffusion model"
    assert report.edit["region"]["frame_ranges"] == [[0, 3]] and "seed" not in report.edit
    assert [each.sha256 for each in report.other_inputs] == [hash_file(folder / "first.png")]
    data = path.read_bytes()
    assert not [text for text in (str(folder), str(tmp_path), str(Path.home()) + "/", "secret idea", "first.png") if text.encode() in data]


def test_no_sign(folder: Path, tmp_path: Path) -> None:
    path = pipeline.preview(settings_for(folder, "provenance.sign=false"), tmp_path / "preview.mp4", SilentReporter())
    assert verify_file(path).state == "absent"


def test_faulty_certificate_is_found_before_anything_is_made(folder: Path, tmp_path: Path) -> None:
    settings = settings_for(folder, "provenance.certificate=nowhere.pem", "provenance.key=nowhere.pem")
    with pytest.raises(SettingsError, match=r"nowhere.pem: the certificate to sign with cannot be read"):
        pipeline.edit(settings, tmp_path / "out.mp4", tmp_path / "run", SilentReporter())
    assert not list(tmp_path.iterdir())


def test_results_of_a_run(folder: Path, tmp_path: Path) -> None:
    """Each file that shows generated pixels holds a manifest, or has one beside it; each names model, LoRA and seed."""
    run = tmp_path / "run"
    pipeline.edit(settings_for(folder, "seed=3"), tmp_path / "out.webm", run, SilentReporter())
    files = [tmp_path / "out.webm", *(run / name for name in ("result.mp4", "result", "compare.mp4", "poster.png", "poster-compare.png"))]
    for path in [*files, run / "sheet.png", run / "crops.png", *(run / "samples").glob("*.png")]:
        assert verify_file(path, source=folder / "clip.mkv").is_valid, path
    edit = verify_file(run).edit
    assert edit is not None and edit["seed"] == 3 and edit["outside_region"] == "source"
    assert edit["model"]["name"] == "tiny" and edit["model"]["license"] == "Apache-2.0" and len(edit["model"]["fingerprint"]) == 16
    assert edit["loras"] == [{"role": "trained on this clip", "sha256": hash_file(run / "lora" / "edit.safetensors")}]
    assert json.loads((run / "manifest.json").read_text())["provenance"]["self_signed"]
    assert "signed C2PA manifest in every result" in (run / "report.html").read_text()
    (run / "result" / "00001.png").write_bytes((run / "result" / "00002.png").read_bytes())
    assert verify_file(run / "result").state == "invalid"

    pipeline.edit(settings_for(folder, "seed=3", "provenance.sign=false"), tmp_path / "unsigned.mp4", run, SilentReporter())
    assert verify_file(run).state == "absent" and json.loads((run / "manifest.json").read_text())["provenance"] == {"signed": False}
    assert "signing was switched off (--no-sign)" in (run / "report.html").read_text()


def test_frames_outlive_a_failure_to_sign(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_sign = signing.sign_stream

    def fail_on_videos(*arguments: Any) -> bytes:
        if arguments[2] == "video/mp4":
            raise LibraryError("no more random numbers")
        return real_sign(*arguments)

    monkeypatch.setattr(signing, "sign_stream", fail_on_videos)
    with pytest.raises(SigningError, match=r"out.mp4: the finished result cannot be signed .*; the finished frames are in .*unsigned"):
        pipeline.edit(settings_for(folder), tmp_path / "out.mp4", tmp_path / "run", SilentReporter())
    assert not (tmp_path / "out.mp4").exists()
    assert load_frames(tmp_path / "run" / "samples" / "seed-0-unsigned").shape == (4, 48, 64, 3)
