"""What a run shows afterwards: result, side-by-side video, contact sheet, loss curve, report."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lora_edit.captions import prompt_rows
from lora_edit.config import EditSettings
from lora_edit.evaluation.leak import leak
from lora_edit.evaluation.plots import loss_plot
from lora_edit.evaluation.psnr import psnr
from lora_edit.evaluation.report import Report, write_report
from lora_edit.inputs import Clip
from lora_edit.run import Run
from lora_edit.types import Video, content_hash
from lora_edit.video.lossless import save_frames
from lora_edit.video.settings import Codec
from lora_edit.video.sheet import contact_sheet, save_image, side_by_side
from lora_edit.video.write import write_video


def next_sample(run: Run, codec: Codec) -> Path:
    """A free name in the run's `samples/`, with an ending that holds the codec."""
    ending = {"ffv1": ".mkv", "prores": ".mov"}.get(codec, ".mp4")
    (run.folder / "samples").mkdir(exist_ok=True)
    number = 0
    while (path := run.folder / "samples" / f"sample_{number:03d}{ending}").exists():
        number += 1
    return path


def write_results(run: Run, settings: EditSettings, clip: Clip, video: Video, output: Path, seconds: dict[str, float]) -> tuple[str, ...]:
    """Write `result.mp4`, lossless `result/` frames, `compare.mp4`, `sheet.png`, the loss curve and `report.html` into the run folder.

    Returns the remarks that a person should read.
    """
    folder, notes = run.folder, clip.notes
    shutil.rmtree(folder / "result", ignore_errors=True)
    save_frames(folder / "result", video.frames)
    _copy_or_write(output, folder / "result.mp4", video)
    source = clip.video
    write_video(folder / "compare.mp4", replace(source, frames=side_by_side(source.frames, video.frames), alpha=None), overwrite=True)
    save_image(
        folder / "sheet.png",
        contact_sheet([source.frames, outline(source.frames, clip.edit_mask.frames), video.frames], ["source", "edit region", "edited"]),
    )
    manifest = run.manifest()
    if manifest.get("losses"):
        loss_plot(manifest["losses"], [(name, steps) for name, steps in manifest["stages"]], folder / "loss.png")
    metrics = quick_metrics(clip, video)
    run.update_manifest(
        seconds=seconds,
        metrics=metrics,
        notes=list(notes),
        result_hash=content_hash(video.frames),
        output=str(output),
        model=settings.model,
    )
    write_report(
        folder / "report.html",
        Report(
            title=f"{Path(settings.input.source).name}, edited",
            result=Path("result.mp4"),
            compare=Path("compare.mp4"),
            sheet=Path("sheet.png"),
            loss_plot=Path("loss.png") if manifest.get("losses") else None,
            facts=[
                *_facts(settings, video, seconds, manifest.get("stages", [])),
                *prompt_rows(settings, clip),
                *_other_loras(manifest.get("loras", [])),
            ],
            notes=list(notes),
            metrics=metrics,
        ),
    )
    run.log(f"wrote {output}")
    return notes


def quick_metrics(clip: Clip, video: Video) -> dict[str, object]:
    """What can be told in seconds: whether the background is the source's bit for bit (every frame), and the region's difference and
    leak over at most sixteen frames. `lora-edit evaluate` measures the rest."""
    source, mask = clip.video.frames, clip.edit_mask.frames
    exact = all(torch.equal(new[~region], old[~region]) for new, old, region in zip(video.frames, source, mask, strict=True))
    some = torch.linspace(0, video.num_frames - 1, min(16, video.num_frames)).long()
    difference = psnr(video.frames[some], source[some], mask[some]) if mask[some].any() else math.nan
    shown = leak(video.frames[some], source[some], clip.first_frame, mask[some]) if len(some) > 1 and mask[0].any() else math.nan
    found = {"region_psnr": difference, "leak": shown}
    return {
        "num_frames": video.num_frames,
        "size": str(video.size),
        "fps": float(video.fps),
        **({"background_psnr": None, "background_exact": True} if exact else {}),
        **{name: round(value, 4) for name, value in found.items() if math.isfinite(value)},
    }


def outline(frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Frames `[T, H, W, 3]` with all but the edit region dimmed."""
    out = frames.clone()
    for frame, region in zip(out, mask, strict=True):
        frame[~region] = frame[~region] // 3
    return out


def _copy_or_write(output: Path, target: Path, video: Video) -> None:
    if output.suffix == ".mp4":
        shutil.copyfile(output, target)
    else:
        write_video(target, video, overwrite=True)


def _other_loras(used: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [("other LoRA", f"{Path(each['file']).name} at {each['strength']:g}, {each['layers']} layers") for each in used]


def _facts(settings: EditSettings, video: Video, seconds: dict[str, float], stages: list[tuple[str, int]]) -> list[tuple[str, str]]:
    training, generation = settings.training, settings.generation
    steps = f"{training.motion_steps} motion, {training.appearance_steps if settings.input.references else 0} appearance"
    if training.early_stop and stages:
        steps = ", ".join(f"{done} {name}" for name, done in stages) + f" (at most {steps})"
    return [
        ("model", settings.model),
        ("frames, size, rate", f"{video.num_frames}, {video.size}, {float(video.fps):g} per second"),
        ("method", settings.method.conditioning),
        ("training steps", steps),
        ("LoRA", f"rank {settings.lora.rank}, {settings.lora.targets}, rate {training.learning_rate:g}"),
        ("sampling", f"{generation.steps} steps, guidance {generation.guidance_scale:g}, shift {generation.shift:g}"),
        ("seed", str(settings.seed)),
        ("seconds", ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())),
    ]
