"""`verify` looks for the watermark, also where the manifest is gone."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from typer.testing import CliRunner

from lora_edit.cli.main import app
from lora_edit.provenance.watermark import embed_watermark
from lora_edit.types import Video
from lora_edit.video.write import write_video


def write_clip(path: Path, is_marked: bool) -> Path:
    """Write grey frames with grain, marked everywhere or nowhere, without a manifest."""
    noise = np.random.default_rng(0).normal(120, 4, (3, 96, 128, 1)).astype(np.uint8)
    frames = torch.from_numpy(np.repeat(noise, 3, 3))
    frames = embed_watermark(frames, torch.ones(frames.shape[:3])) if is_marked else frames
    write_video(path, Video(frames, Fraction(10), (0.0, 0.1, 0.2)))
    return path


def verify(*arguments: object) -> tuple[int, str, str]:
    outcome = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    return outcome.exit_code, outcome.stdout, outcome.stderr


def test_the_mark_is_found_without_a_manifest(tmp_path: Path) -> None:
    code, _, message = verify(write_clip(tmp_path / "marked.mp4", True))
    assert code == 2 and "no manifest; the watermark of lora-edit was found (false-positive rate 1e-06 per file)" in " ".join(
        message.split()
    )
    code, output, _ = verify(write_clip(tmp_path / "again.mp4", True), "--json")
    record = json.loads(output)["watermark"]
    assert code == 2 and record["found"] and record["false_positive_probability"] < 1e-6 and record["num_frames"] == 3


def test_an_unmarked_clip_and_a_text_carry_none(tmp_path: Path) -> None:
    code, _, message = verify(write_clip(tmp_path / "plain.mp4", False))
    assert code == 2 and "the watermark of lora-edit was not found" in " ".join(message.split())
    (tmp_path / "notes.txt").write_text("no video", "utf-8")
    code, _, message = verify(tmp_path / "notes.txt")
    assert code == 2 and "not looked for" in " ".join(message.split())
