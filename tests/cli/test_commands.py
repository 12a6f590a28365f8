"""Subcommands that need no downloaded model, on real files."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner

from lora_edit import estimate
from lora_edit.cli import inspect_commands
from lora_edit.cli.main import app
from lora_edit.config import resolve_settings
from lora_edit.devices import Machine
from lora_edit.evaluation import lpips
from lora_edit.evaluation.lpips import Lpips
from lora_edit.evaluation.registry import METRICS
from lora_edit.masks import saliency, sam2, sam3_detector
from lora_edit.masks.embedded_segmenter import EmbeddedSegmenter
from lora_edit.masks.files import load_mask, read_mask
from lora_edit.masks.saliency import SaliencyNetwork
from lora_edit.masks.sam3_detector import Detection
from lora_edit.run import make_run
from lora_edit.types import Box, Size, Video
from lora_edit.video.png_frames import save_frames
from lora_edit.video.read import read_image, read_video
from lora_edit.video.settings import VideoSettings
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video
from masks.synthetic_clips import disc_clip, overlap

FRAMES, HEIGHT, WIDTH = 4, 32, 48


@pytest.fixture
def frames() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (FRAMES, HEIGHT // 8, WIDTH // 8, 3), generator=generator, dtype=torch.uint8)
    return coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)


@pytest.fixture
def clip(tmp_path: Path, frames: torch.Tensor) -> Path:
    path = tmp_path / "clip.mkv"
    write_video(path, Video(frames, Fraction(25), tuple(i / 25 for i in range(FRAMES))), "ffv1")
    return path


def run(*arguments: str | Path) -> tuple[int, str, str]:
    outcome = CliRunner().invoke(app, [str(word) for word in arguments])
    return outcome.exit_code, outcome.stdout, outcome.stderr


def test_mask_draws_boxes(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mask"
    code, out, err = run("mask", clip, "--box", "0,0,8,8:0", "--box", "30,0,8,8:3", "--output", folder)
    assert (code, out.strip()) == (0, str(folder)), err
    drawn = load_mask(folder).frames
    assert drawn.shape == (FRAMES, HEIGHT, WIDTH)
    assert drawn[0, :8, :8].all()
    assert drawn[3, :8, 30:38].all()
    assert drawn[1, :8, 10:18].all()
    assert run("mask", clip, "--box", "0,0,8,8", "--output", folder)[0] == 2
    assert run("mask", clip, "--box", "0,0,9,8", "--output", folder, "--overwrite")[0] == 0
    assert run("mask", clip, "--box", "90,0,8,8", "--output", tmp_path / "other")[0] == 2
    assert not (tmp_path / "other").exists()


@pytest.fixture
def disc(tmp_path: Path) -> tuple[Path, torch.Tensor]:
    frames, truth = disc_clip()
    write_video(tmp_path / "disc.mkv", Video(frames, Fraction(25), tuple(i / 25 for i in range(len(frames)))), "ffv1")
    return tmp_path / "disc.mkv", truth


def test_mask_segments_object_at_point(disc: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    clip, truth = disc
    code, out, err = run("mask", clip, "--point", "50,48", "-o", tmp_path / "mask.mp4", "--overlay", tmp_path / "shown.mp4")
    assert (code, out.strip()) == (0, str(tmp_path / "mask.mp4")), err
    drawn = read_mask(tmp_path / "mask.mp4", len(truth), Size(*truth.shape[1:])).frames
    assert overlap(drawn, truth) > 0.9
    assert read_video(tmp_path / "shown.mp4").num_frames == len(truth)
    code, _, err = run("mask", clip, "--box", "30,28,40,40@0#disc", "--segmenter", "embedded", "--shape", "box", "-o", tmp_path / "mask")
    assert code == 0, err
    boxed = load_mask(tmp_path / "mask").frames
    assert (boxed | ~drawn).all()
    assert int(boxed[0].sum()) > 40 * 40


def test_mask_segments_salient_object(disc: tuple[Path, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, truth = disc
    monkeypatch.setattr(saliency, "load_saliency_network", lambda: None)
    code, _, err = run("mask", clip, "--auto", "-o", tmp_path / "mask")
    assert (code, err.count("\n")) == (2, 1)
    assert "U2-Net-p" in err
    monkeypatch.setattr(
        saliency, "load_saliency_network", lambda: SaliencyNetwork(lambda pixels: (pixels[0, 2] > pixels[0, 0] + 0.5).astype("float32"))
    )
    code, _, err = run("mask", clip, "--auto", "-o", tmp_path / "mask")
    assert code == 0, err
    assert overlap(load_mask(tmp_path / "mask").frames, truth) > 0.9


def test_mask_and_preview_segment_the_described_object(
    disc: tuple[Path, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SAM 3's detector and tracker are replaced: a fixed box, and the embedded segmenter."""
    clip, truth = disc
    (tmp_path / "sam3").mkdir()
    (tmp_path / "sam3" / "config.json").write_text('{"model_type": "sam3_video"}', "utf-8")
    monkeypatch.setattr(sam3_detector, "Sam3Detector", lambda folder: SimpleNamespace(detect=detect_disc))
    monkeypatch.setattr(sam2, "Sam2Segmenter", lambda folder: EmbeddedSegmenter(None))
    described = ["--segment", "the disc", "--segmenter", f"sam2:{tmp_path / 'sam3'}"]
    code, _, err = run("mask", clip, *described, "-o", tmp_path / "mask")
    assert code == 0, err
    assert overlap(load_mask(tmp_path / "mask").frames, truth) > 0.9
    first_frame = read_video(clip).frames[0]
    first_frame[truth[0]] = torch.tensor([0, 90, 200], dtype=torch.uint8)
    save_image(tmp_path / "first.png", first_frame)
    code, _, err = run("preview", clip, "--first-frame", tmp_path / "first.png", *described, "--output", tmp_path / "preview.mkv")
    assert code == 0, err
    assert read_video(tmp_path / "preview.mkv").num_frames == len(truth)


def detect_disc(frame: torch.Tensor, text: str) -> list[Detection]:
    assert text == "the disc"
    return [Detection(Box(30, 28, 40, 40), 0.9)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--point", "160,5"], "outside the frame, which is 160x96"),
        (["--point", "5,5:6"], "frames 0 to 5"),
        (["--point", "50,48", "--not-point", "5,5#hat"], "object hat: no click is on it yet"),
        (["--point", "50,48", "--segmenter", "magic"], "write embedded, or sam2:FOLDER"),
        (["--segment", "a disc"], "add --segmenter sam2:FOLDER with a SAM 3 model"),
        (["--segment", ""], "the text is empty"),
    ],
)
def test_mask_rejects_invalid_points(disc: tuple[Path, torch.Tensor], tmp_path: Path, arguments: list[str], words: str) -> None:
    code, out, err = run("mask", disc[0], *arguments, "--output", tmp_path / "mask")
    assert (code, out) == (2, "")
    assert words in err
    assert not (tmp_path / "mask").exists()


def test_evaluate_prints_metrics(clip: Path, frames: torch.Tensor, tmp_path: Path) -> None:
    edited = frames.clone()
    edited[:, :16, :16] = 255 - edited[:, :16, :16]
    save_frames(tmp_path / "result", edited)
    run("mask", clip, "--box", "0,0,16,16", "--output", tmp_path / "mask")
    arguments = ("evaluate", tmp_path / "result", "--source", clip, "--mask", tmp_path / "mask")
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert {"num_frames", "size", "fps", "region_psnr", "region_ssim", "background_psnr", "background_ssim", "flicker"} <= set(record)
    assert record["size"] == "48x32"
    assert record["background_exact"] is True
    code, out, err = run(*arguments, "--metrics", "region_psnr")
    assert [line.split()[0] for line in out.splitlines()] == ["num_frames", "size", "fps", "region_psnr"]


def test_evaluate_measures_baselines(clip: Path, frames: torch.Tensor, tmp_path: Path) -> None:
    edited = frames.clone()
    edited[:, :16, :16] = 255 - edited[:, :16, :16]
    save_frames(tmp_path / "result", edited)
    save_frames(tmp_path / "first", edited[:1])
    run("mask", clip, "--box", "0,0,16,16", "--output", tmp_path / "mask")
    first = next((tmp_path / "first").glob("*.png"))
    arguments = ("evaluate", tmp_path / "result", "--source", clip, "--mask", tmp_path / "mask", "--truth", tmp_path / "result")
    code, out, err = run(*arguments, "--first-frame", first, "--baselines", "--json")
    assert code == 0, err
    baselines = json.loads(out)["baselines"]
    assert list(baselines) == ["flow warp", "colour map", "moving layer"]
    assert all(figures["region_psnr"] > 5 and figures["background_exact"] for figures in baselines.values())
    code, out, err = run(*arguments, "--first-frame", first, "--baselines", "--metrics", "region_psnr")
    assert code == 0 and "moving layer" in out.splitlines()[0]


def test_evaluate_computes_learned_metrics_by_name(
    clip: Path, frames: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_frames(tmp_path / "result", frames)
    arguments = ("evaluate", tmp_path / "result", "--source", clip, "--metrics", "lpips,flicker")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "alexnet-owt-7be5be79.pth" in err
    monkeypatch.setattr(lpips, "load_lpips", lambda device: Lpips().eval())
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    assert list(json.loads(out)) == ["num_frames", "size", "fps", "flicker", "lpips"]
    assert json.loads(out)["lpips"] == 0


def test_command_lists_every_metric() -> None:
    keys = (*inspect_commands.METRICS, *inspect_commands.LEARNED_METRICS)
    assert ", ".join(keys) == inspect_commands.METRIC_LIST
    assert {*keys, "background_lpips"} == set(METRICS)


def test_evaluate_rejects_another_length(clip: Path, frames: torch.Tensor, tmp_path: Path) -> None:
    save_frames(tmp_path / "result", frames[:2])
    code, out, err = run("evaluate", tmp_path / "result", "--source", clip)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")


def test_preview_writes_video(clip: Path, frames: torch.Tensor, tmp_path: Path) -> None:
    first = frames[0].clone()
    first[4:12, 4:12] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    Image.fromarray(first.numpy()).save(tmp_path / "first.png")
    output = tmp_path / "preview.mp4"
    code, out, err = run(
        "preview", clip, "--first-frame", tmp_path / "first.png", "--box", "2,2,12,12:0", "--box", "2,2,12,12:3", "--output", output
    )
    assert (code, out.strip()) == (0, str(output)), err
    assert output.is_file()


def lora_tensors() -> dict[str, np.ndarray]:
    layers = [f"transformer.blocks.{block}.attn1.{name}" for block in (0, 1) for name in ("to_q", "to_out.0")]
    down = {f"{layer}.lora_A.weight": np.zeros((4, 8), np.float32) for layer in layers}
    return down | {f"{layer}.lora_B.weight": np.zeros((8, 4), np.float32) for layer in layers}


def test_import_describes_lora(tmp_path: Path) -> None:
    path = tmp_path / "edit.safetensors"
    save_file(lora_tensors(), path, metadata={"base_model": "tiny", "odd": "\x1b[31m" + "x" * 300})
    code, out, err = run("import", path, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert (record["tensors"], record["layers"], record["ranks"], record["parameters"]) == (8, 4, [4], 256)
    assert record["targets"] == ["blocks.*.attn1.to_out.*", "blocks.*.attn1.to_q"]
    assert record["metadata"]["base_model"] == "tiny"
    code, out, err = run("import", path)
    assert "\x1b" not in out
    assert "x" * 200 not in out


def test_import_rejects_other_files(tmp_path: Path) -> None:
    damaged, other = tmp_path / "damaged.safetensors", tmp_path / "other.safetensors"
    save_file(lora_tensors(), damaged)
    damaged.write_bytes(damaged.read_bytes()[:-10])
    save_file({"weight": np.zeros((2, 2), np.float32)}, other)
    for path in (damaged, other, tmp_path / "missing.safetensors", tmp_path):
        code, out, err = run("import", path)
        assert (code, out, err.count("\n")) == (2, "", 1), err


def test_export_writes_lora_of_run(tmp_path: Path) -> None:
    kept = make_run(tmp_path / "kept", resolve_settings({"input": {"source": "a.mp4", "first_frame": "b.png"}}))
    output = tmp_path / "out.safetensors"
    arguments = ("export", kept.folder, "--output", output)
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "lora-edit train" in err
    kept.lora_file().parent.mkdir()
    save_file(lora_tensors(), kept.lora_file(), metadata={"base_model": "tiny"})
    code, out, err = run(*arguments)
    assert (code, out.strip()) == (0, str(output)), err
    facts = json.loads(run("import", output, "--json")[1])
    assert (facts["targets"], facts["metadata"]["base_model"]) == (["blocks.*.self_attn.o", "blocks.*.self_attn.q"], "tiny")
    assert facts["layout"].startswith("ComfyUI")
    assert run(*arguments)[0] == 2
    assert run(*arguments, "--format", "diffusers", "--overwrite")[0] == 0
    assert json.loads(run("import", output, "--json")[1])["layout"].startswith("diffusers")
    assert run("export", kept.folder, "--output", kept.lora_file(), "--overwrite")[0] == 2


def test_study_runs_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, room = ModuleType("registry"), ModuleType("a_study")
    seen: list[tuple[object, ...]] = []

    def measure(name: str, target: str, output: Path, scenes: int, seeds: int, reporter: object, **more: object) -> Path:
        seen.append((name, target, output, scenes, seeds, more))
        return output / "table.csv"

    registry.STUDIES, registry.RUNNER = {"methods": "rows"}, "a_study:measure"  # type: ignore[attr-defined]
    room.measure = measure  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lora_edit.studies.registry", registry)
    monkeypatch.setitem(sys.modules, "a_study", room)
    assert run("study", "--list")[:2] == (0, "methods\nusers\n")
    code, out, err = run("study", "methods", "--scenes", "2", "--seeds", "3", "--set", "lora.rank=4", "--output", tmp_path)
    assert (code, out.strip()) == (0, str(tmp_path / "table.csv")), err
    assert seen == [("methods", "rows", tmp_path, 2, 3, {"model": "tiny", "workers": 1, "base_assignments": ["lora.rank=4"], "vace": ""})]
    registry.SCENE_FOLDER, room.Folder = "a_study:Folder", lambda *given: given  # type: ignore[attr-defined]
    seen.clear()
    (tmp_path / "scenes.jsonl").touch()
    assert run("study", "methods", "--scenes-from", tmp_path, "--half", "all", "--output", tmp_path)[0] == 0
    assert run("study", "methods", "--scenes-from", tmp_path, "--scenes", "7", "--output", tmp_path)[0] == 0
    assert run("study", "methods", "--output", tmp_path)[0] == 0
    assert [call[3] for call in seen] == [(tmp_path, "all", None), (tmp_path, "seen", 7), 4]
    code, out, err = run("study", "methods", "--set", "nonsense", "--output", tmp_path)
    assert (code, "section.setting=value" in err) == (2, True)
    code, out, err = run("study", "unheard-of", "--output", tmp_path)
    assert (code, "methods" in err) == (2, True)


def test_study_fails_without_studies_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lora_edit.studies.registry", None)
    code, out, err = run("study", "--list")
    assert (code, out, err) == (2, "", "error: studies are not in this version; nothing to run\n")


@pytest.mark.parametrize("verb", ["edit", "new", "preview"])
def test_image_of_region_error_is_written_beside_output(clip: Path, frames: torch.Tensor, tmp_path: Path, verb: str) -> None:
    """Before any training."""
    edited = frames[0].clone()
    edited[4:20, 4:24] = 255 - edited[4:20, 4:24]
    Image.fromarray(edited.numpy()).save(tmp_path / "first.png")
    before = set(tmp_path.iterdir())
    arguments = (verb, clip, "--first-frame", tmp_path / "first.png", "--box", "30,4,14,20", "--output", tmp_path / "out.mp4")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "of what the edited first frame changes lies outside of --box; give --box 4,4,20,16" in err
    assert str(tmp_path / "out-region.png") in err
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out-region.png"}
    with Image.open(tmp_path / "out-region.png") as picture:
        assert picture.size == (WIDTH, HEIGHT)


def test_image_of_lost_region_is_written_beside_output(tmp_path: Path) -> None:
    """The object is missing after a cut: the image shows the region in the first frame and where it is lost, and nothing is trained."""
    frames, truth = disc_clip(12)
    frames[3:] = (
        torch.randint(0, 256, (9, 12, 20, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        .repeat_interleave(8, 1)
        .repeat_interleave(8, 2)
    )
    write_video(tmp_path / "cut.mkv", Video(frames, Fraction(25), tuple(i / 25 for i in range(12))), "ffv1")
    edited = frames[0].clone()
    edited[truth[0]] = 255 - edited[truth[0]]
    Image.fromarray(edited.numpy()).save(tmp_path / "first.png")
    arguments = ("edit", tmp_path / "cut.mkv", "--first-frame", tmp_path / "first.png", "--output", tmp_path / "out.mp4")
    code, out, err = run(*arguments)
    assert (code, out) == (2, ""), err
    assert "is lost from frame" in err and "give --box X,Y,W,H:FRAME at several frames or --mask PATH" in err
    with Image.open(tmp_path / "out-region.png") as picture:
        assert picture.size == (2 * 160, 96)
    assert not (tmp_path / "out.run").exists()


def test_region_check_can_be_disabled(clip: Path, frames: torch.Tensor, tmp_path: Path) -> None:
    edited = frames[0].clone()
    edited[4:20, 4:24] = 255 - edited[4:20, 4:24]
    Image.fromarray(edited.numpy()).save(tmp_path / "first.png")
    arguments = ("new", clip, "--first-frame", tmp_path / "first.png", "--box", "30,4,14,20", "--output", tmp_path / "out.mp4")
    code, _, err = run(*arguments, "--set", "masks.check=false")
    assert code == 0, err
    assert not (tmp_path / "out-region.png").exists()


@pytest.mark.parametrize("options", [(), ("--start", "1"), ("--start", "1", "--frames", "3"), ("--fps", "5")])
def test_frame_writes_frame_as_edit_reads_it(clip: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Bit-exact, for any range."""
    settings = dict(zip((word.strip("-") for word in options[::2]), map(int, options[1::2]), strict=True))
    read = read_video(clip, VideoSettings.model_validate(settings))
    code, out, err = run("frame", clip, "2", "--output", tmp_path / "two.png", *options)
    assert (code, out.strip()) == (0, str(tmp_path / "two.png")), err
    assert torch.equal(read_image(tmp_path / "two.png"), read.frames[2])
    assert run("frame", clip, "0", "--output", tmp_path / "two.png", *options)[0] == 2
    assert run("frame", clip, "0", "--output", tmp_path / "two.png", "--overwrite", *options)[0] == 0
    assert torch.equal(read_image(tmp_path / "two.png"), read.frames[0])


def test_frame_past_end_is_rejected_with_valid_range(clip: Path, tmp_path: Path) -> None:
    code, _, err = run("frame", clip, "4", "--output", tmp_path / "four.png")
    assert code == 2 and "has frames 0 to 3" in err
    assert not (tmp_path / "four.png").exists()


def test_evaluate_reads_frame_rate_of_run(frames: torch.Tensor, tmp_path: Path) -> None:
    """A folder of frames has the rate of its run, else that of the source, else none."""
    slow = tmp_path / "slow.mkv"
    write_video(slow, Video(frames, Fraction(8), tuple(i / 8 for i in range(FRAMES))), "ffv1")
    for place in ("result", "run/result", "run/frames"):
        save_frames(tmp_path / place, frames)
    (tmp_path / "run" / "clip.json").write_text('{"fps": "8"}')
    for result, source, rate in (("result", "slow.mkv", 8.0), ("run/result", "run/frames", 8.0), ("result", "result", None)):
        code, out, err = run("evaluate", tmp_path / result, "--source", tmp_path / source, "--json")
        assert (code, json.loads(out)["fps"]) == (0, rate), err


def test_evaluate_prints_exact_for_infinite_psnr(clip: Path, frames: torch.Tensor, tmp_path: Path) -> None:
    edited = frames.clone()
    edited[:, :16, :16] = 255 - edited[:, :16, :16]
    save_frames(tmp_path / "result", edited)
    run("mask", clip, "--box", "0,0,16,16", "--output", tmp_path / "mask")
    _, out, _ = run("evaluate", tmp_path / "result", "--source", clip, "--mask", tmp_path / "mask")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    assert (rows["background_psnr"], rows["fps"]) == ("exact (inf)", "25.0")
    _, out, _ = run("evaluate", tmp_path / "result", "--source", tmp_path / "result", "--metrics", "region_psnr")
    assert "region_psnr  exact (inf)" in out


def edited_disc(disc: tuple[Path, torch.Tensor], file: Path) -> tuple[Path, torch.Tensor]:
    """Return the clip and the mask of its disc, and write the first frame with inverted colours of the disc to the file."""
    clip, truth = disc
    edited = read_video(clip).frames[0].clone()
    edited[truth[0]] = 255 - edited[truth[0]]
    Image.fromarray(edited.numpy()).save(file)
    return clip, truth


def test_edit_segments_object_at_point(disc: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    """As `mask --point` does. A point outside of the frame is rejected before training."""
    clip, truth = edited_disc(disc, tmp_path / "first.png")
    arguments = ("new", clip, "--first-frame", tmp_path / "first.png", "--point", "50,48")
    code, _, err = run(*arguments, "--run", tmp_path / "run")
    assert code == 0, err
    assert "the edit keeps to the mask" in err
    region = load_mask(tmp_path / "run" / "masks").frames  # The mask, grown by the soft edge of compositing.
    assert overlap(region, truth) > 0.7
    assert (region & truth).sum() > 0.99 * truth.sum()
    code, _, err = run(*arguments[:-1], "300,300", "--run", tmp_path / "other")
    assert code == 2 and "outside the frame" in err
    assert not (tmp_path / "other").exists()


def test_edit_excludes_negative_points(disc: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    """As `mask --not-point` does: equal clicks give equal masks."""
    clip, _ = edited_disc(disc, tmp_path / "first.png")
    clicks = ("--point", "50,48", "--not-point", "60,48:3")
    assert run("mask", clip, *clicks, "--output", tmp_path / "mask")[0] == 0
    arguments = ("new", clip, "--first-frame", tmp_path / "first.png", *clicks, "--mask-shape", "as-is")
    code, _, err = run(*arguments, "--run", tmp_path / "run")
    assert code == 0, err
    region, drawn = (load_mask(tmp_path / name).frames for name in ("run/masks", "mask"))
    assert torch.equal(region, drawn)
    run("mask", clip, *clicks[:2], "--output", tmp_path / "uncorrected")
    assert not torch.equal(load_mask(tmp_path / "uncorrected").frames, drawn)


def test_box_in_first_frame_follows_object(disc: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    """Boxes at several frames stay as given."""
    clip, truth = edited_disc(disc, tmp_path / "first.png")
    arguments = ("new", clip, "--first-frame", tmp_path / "first.png", "--expand", "0")
    code, _, err = run(*arguments, "--box", "28,26,44,44", "--run", tmp_path / "follows")
    assert code == 0, err
    assert "follows what the edit changes in it, by up to 15 pixels" in err
    assert "for a box that stays, give --box 28,26,44,44:0 --box 28,26,44,44:5" in err
    region = load_mask(tmp_path / "follows" / "masks").frames
    assert (region | ~truth).all() and overlap(region[5], truth[5]) > 0.55
    assert bounds(region[0]) == pytest.approx((28, 26, 72, 70), abs=1)  # smoothed over time
    assert run(*arguments, "--box", "28,26,44,44:0", "--box", "28,26,44,44:5", "--run", tmp_path / "stays")[0] == 0
    assert all(bounds(frame) == (28, 26, 72, 70) for frame in load_mask(tmp_path / "stays" / "masks").frames)


def bounds(mask: torch.Tensor) -> tuple[int, int, int, int]:
    rows, columns = (torch.nonzero(mask.any(axis)).flatten() for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_new_estimates_missing_model(clip: Path, frames: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time, memory and disk space are estimated from the catalogue alone; the edit itself needs the model."""
    large = Machine(device_bytes=int(80e9), host_bytes=int(256e9), flops_per_second=4e14, dtype=torch.bfloat16)
    monkeypatch.setattr(estimate, "measure_machine", lambda: large)
    edited = frames[0].clone()
    edited[4:20, 4:24] = 255 - edited[4:20, 4:24]
    Image.fromarray(edited.numpy()).save(tmp_path / "first.png")
    arguments = (
        clip,
        "--first-frame",
        tmp_path / "first.png",
        "--box",
        "2,2,24,20:0",
        "--box",
        "2,2,24,20:3",
        "--model",
        "wan2.1-i2v-480p",
        "--preset",
        "low-vram",
    )
    code, out, err = run("new", *arguments, "--run", tmp_path / "run", "--json")
    assert code == 0, err
    assert "`lora-edit models --download wan2.1-i2v-480p` downloads about 90 GB" in err
    needs = json.loads(out)["estimate"]
    assert needs["download_bytes"] == 90_000_000_000
    assert 0 < needs["memory_bytes"] < 80e9 and needs["host_bytes"] > 0
    assert needs["seconds_train"] > 0 and needs["seconds_generate"] > 0
    code, _, err = run("edit", *arguments, "--output", tmp_path / "out.mp4")
    assert code == 2 and "is not downloaded (about 90 GB" in err
