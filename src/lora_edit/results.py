"""The results of a run: video, side-by-side video, contact sheet, loss curve, report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lora_edit.atomic_files import copy_file
from lora_edit.captions import build_prompt_rows
from lora_edit.config import EditSettings
from lora_edit.errors import VideoError
from lora_edit.evaluation.flicker import flicker
from lora_edit.evaluation.leak import leak
from lora_edit.evaluation.plots import draw_loss_plot
from lora_edit.evaluation.psnr import psnr
from lora_edit.evaluation.report import Report, write_report
from lora_edit.inputs import Clip
from lora_edit.provenance.signing import ResultSigner, build_provenance_rows, describe_provenance, finish_unsigned
from lora_edit.reporting import Reporter
from lora_edit.reproduction import ResultRecord, record_to_entry
from lora_edit.result_watermark import build_watermark_rows
from lora_edit.run import Run
from lora_edit.takes import (
    RESULT_FILE,
    SAMPLES_FOLDER,
    GenerationRequest,
    Take,
    add_take,
    archive_result,
    find_free_name,
    has_finished_result,
    list_takes,
    takes_to_entry,
)
from lora_edit.types import Video, hash_content
from lora_edit.video.disocclusion import compute_unseen_shares, suggest_next_frame
from lora_edit.video.png_frames import save_frames
from lora_edit.video.read import read_image
from lora_edit.video.settings import Codec
from lora_edit.video.sheet import (
    build_contact_sheet,
    extract_around_region,
    join_side_by_side,
    save_image,
    select_evenly_spaced,
    stack_sheets,
)
from lora_edit.video.write import MAX_SIDE, describe_output_losses, verify_output_writable, write_video

SHEET_COLUMNS, CELL_HEIGHT = 6, 160
"""Frames in a row of the contact sheet, and their height."""

CROP_COLUMNS, CROP_HEIGHT = 4, 240
"""The same of the region's crops."""

FLICKER_FRAMES = 32


@dataclass(frozen=True)
class GeneratedResult:
    """A result that was written to `output`: its frames, seconds by stage, request, and record for the comparison with a repetition.

    Every further file that shows its pixels is signed by `signer`, unless that is None.
    """

    video: Video
    output: Path
    seconds: dict[str, float]
    request: GenerationRequest
    record: ResultRecord
    signer: ResultSigner | None


def write_results(
    run: Run, settings: EditSettings, clip: Clip, result: GeneratedResult, is_main_result: bool, reporter: Reporter
) -> tuple[str, ...]:
    """Write a result into the run folder and return the remarks for the user.

    The main result, or the first, becomes `result.mp4` with its lossless frames, comparison and measurements; any other becomes a take
    beside it. Sheet and report show all of them. The manifest lists the result last, when all its files stand.
    """
    video, output, request, signer = result.video, result.output, result.request, result.signer
    folder, result_hash, notes, entries = run.folder, hash_content(video.frames), clip.notes, dict[str, Any]()
    run.update_manifest(provenance=describe_provenance(signer))
    if is_main_result or not has_finished_result(run):
        name, file = archive_result(run, result_hash) or find_free_name(run, request), RESULT_FILE
        run.update_manifest(unfinished_result=True)
        hint, entries = _write_main_result(run, settings, clip, result, reporter)
        notes, entries = (*notes, *hint), entries | record_to_entry(result.record)
    elif output.parent.resolve() == (folder / SAMPLES_FOLDER).resolve():
        name, file = output.stem, f"{SAMPLES_FOLDER}/{output.name}"
    else:
        name = find_free_name(run, request)
        file = f"{SAMPLES_FOLDER}/{name}.mp4"
        _copy_or_write(output, folder / file, video, signer)
    picture, title = f"{SAMPLES_FOLDER}/{name}.png", request.title if name == request.name else f"{request.title} ({name})"
    sign = signer.sign_png if signer else None
    save_image(folder / picture, build_contact_sheet([video.frames], [f"edited: {title}"], SHEET_COLUMNS, CELL_HEIGHT), sign)
    takes = add_take(list_takes(run), Take(name, file, picture, title, result_hash))
    entries |= takes_to_entry(takes) | {"unfinished_output": None, "unfinished_result": None}
    rows = [clip.video.frames, dim_outside_region(clip.video.frames, clip.edit_mask.frames)]
    pictures = [read_image(folder / take.picture) for take in takes if (folder / take.picture).is_file()]
    save_image(
        folder / "sheet.png",
        stack_sheets([build_contact_sheet(rows, ["source", "edit region"], SHEET_COLUMNS, CELL_HEIGHT), *pictures]),
        sign,
    )
    write_report(folder / "report.html", _build_report(folder, run.read_manifest() | entries, takes, settings, clip))
    run.update_manifest(**entries)
    run.log(f"wrote {output}")
    return (*notes, *(signer.notes if signer else ()))


def is_reserved_path(folder: Path, output: Path) -> bool:
    """Whether an output would lie among the files that a run writes itself; `samples/` accepts results of any name."""
    output_path, run_path = output.resolve(), folder.resolve()
    return run_path in output_path.parents and (run_path / SAMPLES_FOLDER) not in output_path.parents


def check_output_for_clip(run: Run, clip: Clip, output: Path, codec: Codec) -> Clip:
    """Add remarks to the clip on what `output` cannot store.

    Raises `VideoError`, before any work, when a result could not be written there or into the run folder, or would replace a file of the
    run.
    """
    if is_reserved_path(run.folder, output):
        raise VideoError(f"{output}: is where the run folder keeps its own files; choose a name outside of {run.folder}")
    verify_output_writable(output, clip.video, codec)
    if output.suffix.lower() != ".mp4":
        verify_output_writable(run.folder / RESULT_FILE, clip.video)
    return replace(clip, notes=tuple(dict.fromkeys((*clip.notes, *describe_output_losses(output, clip.video, codec)))))


def _write_main_result(
    run: Run, settings: EditSettings, clip: Clip, result: GeneratedResult, reporter: Reporter
) -> tuple[list[str], dict[str, Any]]:
    """Write the run's own result and its comparisons; returns a remark on the frame to edit next, if any, and entries of the manifest."""
    folder, source, video, signer = run.folder, clip.video, result.video, result.signer
    finish, sign = (signer.sign_file, signer.sign_png) if signer else (finish_unsigned, None)
    save_frames(folder / "result", video.frames, video.alpha, finish)
    _copy_or_write(result.output, folder / RESULT_FILE, video, signer)
    beside = join_side_by_side(source.frames, video.frames, MAX_SIDE)
    on_frame = partial(reporter.step, "compare")
    write_video(folder / "compare.mp4", replace(source, frames=beside, alpha=None), overwrite=True, on_frame=on_frame, finish=finish)
    middle = video.num_frames // 2
    save_image(folder / "poster.png", video.frames[middle], sign)
    save_image(folder / "poster-compare.png", beside[middle], sign)
    _write_crops(folder / "crops.png", clip, video, signer)
    manifest = run.read_manifest()
    if manifest.get("losses"):
        draw_loss_plot(manifest["losses"], [(name, steps) for name, steps in manifest["stages"]], folder / "loss.png")
    shares = compute_unseen_shares(source.frames, clip.edit_mask.frames, (0, *clip.references, *clip.anchors))
    hint = _suggest_frame(run, clip, shares)
    return hint, {
        "seconds": result.seconds,
        "metrics": compute_quick_metrics(clip, video, partial(reporter.step, "measure")),
        "notes": [*clip.notes, *hint],
        "unproven": [round(share, 4) for share in shares],
        "result_hash": hash_content(video.frames),
        "result_loras": manifest.get("loras", []),
        "output": str(result.output),
        "model": settings.model,
    }


def _write_crops(path: Path, clip: Clip, video: Video, signer: ResultSigner | None) -> None:
    """Write enlarged crops of the region; none for a whole-frame edit, which the sheet shows."""
    if clip.edit_mask.frames.all() or not clip.edit_mask.frames.any():
        path.unlink(missing_ok=True)
        return
    numbers = select_evenly_spaced(video.num_frames, CROP_COLUMNS)
    rows = [extract_around_region(frames, clip.edit_mask.frames, numbers) for frames in (clip.video.frames, video.frames)]
    place = f"frame{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
    sheet = build_contact_sheet(rows, [f"source, {place}", f"edited, {place}"], CROP_COLUMNS, CROP_HEIGHT)
    save_image(path, sheet, signer.sign_png if signer else None)


def _suggest_frame(run: Run, clip: Clip, shares: list[float]) -> list[str]:
    """Write the frame that is best edited next as an image and return a remark; nothing when the edited frames show nearly everything."""
    number = suggest_next_frame(shares, clip.edit_mask.frames)
    if number is None:
        return []
    picture = run.folder / "edit-next" / f"frame-{number}.png"
    save_image(picture, clip.video.frames[number])
    return [
        f"frame {number} has the largest area drawn without proof ({shares[number]:.0%} of the frame); to show what belongs there, edit "
        f"{picture} and add --reference {number}=IMAGE"
    ]


def _build_report(folder: Path, manifest: dict[str, Any], takes: Sequence[Take], settings: EditSettings, clip: Clip) -> Report:
    """Build the report of all results of the run."""
    main = next((take for take in takes if take.file == RESULT_FILE), None)

    def find_file(name: str) -> Path | None:
        return Path(name) if (folder / name).is_file() else None

    pictures = [("The edited first frame", Path("references/first_frame.png"))]
    for kind, frames in (("reference", clip.references), ("anchor", clip.anchors)):
        pictures += [(f"Edited frame {number} ({kind})", Path(f"references/{kind}_{number:05d}.png")) for number in sorted(frames)]
    return Report(
        title=f"{Path(settings.input.source).name}, edited",
        result=Path(RESULT_FILE),
        result_title=f"Result: {main.title}" if main else "Result",
        comparison=Path("compare.mp4"),
        posters=(find_file("poster-compare.png"), find_file("poster.png")),
        contact_sheet=Path("sheet.png"),
        region_sheet=find_file("crops.png"),
        pictures=pictures,
        takes=[(take.title, Path(take.file), Path(take.picture)) for take in takes if take.file != RESULT_FILE and take.picture],
        disoccluded_shares=manifest.get("unproven", []),
        loss_plot=find_file("loss.png") if manifest.get("losses") else None,
        facts=[
            *_build_fact_rows(settings, clip.video, manifest.get("seconds", {}), manifest.get("stages", [])),
            *build_prompt_rows(settings, clip),
            *_build_lora_rows(manifest.get("result_loras", [])),
        ],
        provenance=[*build_provenance_rows(manifest.get("provenance", {})), *build_watermark_rows(manifest.get("watermark", {}))],
        notes=manifest.get("notes", []),
        metrics=manifest.get("metrics", {}),
    )


def compute_quick_metrics(clip: Clip, video: Video, on_frame: Callable[[int, int], None]) -> dict[str, object]:
    """Compute the metrics that take seconds; `lora-edit evaluate` measures the rest.

    Whether the background equals the source bit for bit (every frame), the region's difference and leak over at most sixteen frames, and
    its flicker over the first thirty-two.
    """
    source, mask = clip.video.frames, clip.edit_mask.frames
    exact = all(torch.equal(new[~region], old[~region]) for new, old, region in zip(video.frames, source, mask, strict=True))
    some = torch.linspace(0, video.num_frames - 1, min(16, video.num_frames)).long()
    difference = psnr(video.frames[some], source[some], mask[some]) if mask[some].any() else math.nan
    shown = leak(video.frames[some], source[some], clip.first_frame, mask[some]) if len(some) > 1 and mask[0].any() else math.nan
    start = range(min(FLICKER_FRAMES, video.num_frames))
    flickers = len(start) > 1 and bool(mask[1 : len(start)].any())
    values = {
        "region_psnr": difference,
        "flicker": flicker(video.frames[: len(start)], mask[: len(start)], on_frame) if flickers else math.nan,
        "leak": shown,
    }
    return {
        "num_frames": video.num_frames,
        "size": str(video.size),
        "fps": float(video.fps),
        **({"background_psnr": None, "background_exact": True} if exact else {}),
        **{name: round(value, 4) for name, value in values.items() if math.isfinite(value)},
    }


def dim_outside_region(frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Dim everything but the edit region in frames `[T, H, W, 3]`."""
    out = frames.clone()
    for frame, region in zip(out, mask, strict=True):
        frame[~region] = frame[~region] // 3
    return out


def _copy_or_write(output: Path, target: Path, video: Video, signer: ResultSigner | None) -> None:
    if output.suffix.lower() == ".mp4":
        copy_file(output, target)
    else:
        write_video(target, video, overwrite=True, finish=signer.sign_file if signer else None)


def _build_lora_rows(loras: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [("other LoRA", f"{Path(each['file']).name} at {each['strength']:g}, {each['layers']} layers") for each in loras]


def _build_fact_rows(
    settings: EditSettings, video: Video, seconds: dict[str, float], stages: list[tuple[str, int]]
) -> list[tuple[str, str]]:
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
