"""Table 1's question on scenes with truth: what each part of the method adds (paper 3.1 to 3.3, table 3), and what ours adds."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lora_edit.compositing.flow_warp import flow_warp
from lora_edit.devices import pick_device
from lora_edit.inputs import Clip
from lora_edit.models.family import Family, load_family
from lora_edit.reporting import Reporter
from lora_edit.studies.cases import draw_scenes
from lora_edit.studies.runner import clip_of, generate_in_memory, region_psnr, settings_for, through_codec, train_in_memory
from lora_edit.studies.scenes import TrueEdit, true_edit
from lora_edit.types import Size
from lora_edit.video.sheet import contact_sheet, save_image

SIZE, FRAMES, REFERENCES = Size(64, 64), 17, (8, 16)
_PLAIN = "training.recolour=0.0"


@dataclass(frozen=True)
class Case:
    """One scene and seed, with the model to try on it."""

    family: Family
    edit: TrueEdit
    clip: Clip
    seed: int

    def run(self, *assignments: str, references: tuple[int, ...] = (), infer: str = "") -> torch.Tensor:
        """Train with these settings, generate (with another conditioning where `infer` is given)."""
        settings = settings_for(self.seed, *assignments)
        clip = clip_of(self.edit, settings, references)
        train_in_memory(self.family, clip, settings)
        again = settings_for(self.seed, *assignments, *([f"method.conditioning={infer}"] if infer else []))
        return generate_in_memory(self.family, clip, again)


ROWS: dict[str, Callable[[Case], torch.Tensor]] = {
    "no edit": lambda case: case.edit.source,
    "flow warp": lambda case: flow_warp(case.edit.source, case.clip.first_frame, case.clip.edit_mask),
    "base, first frame given": lambda case: case.run("training.motion_steps=0", "method.conditioning=first-frame"),
    "base, mask given": lambda case: case.run("training.motion_steps=0"),
    "naive LoRA (Eq. 1)": lambda case: case.run("method.conditioning=first-frame", _PLAIN),
    "feature-level (Eq. 3)": lambda case: case.run("method.conditioning=first-frame", _PLAIN, infer="feature-level"),
    "mask-aware motion LoRA (3.3.1)": lambda case: case.run(_PLAIN),
    "motion + appearance, 2 references (3.3.2)": lambda case: case.run(_PLAIN, references=REFERENCES),
    "naive, debiased (ours)": lambda case: case.run("method.conditioning=first-frame"),
    "mask-aware, debiased (ours)": lambda case: case.run(),
    "debiased motion + appearance (ours)": lambda case: case.run(references=REFERENCES),
    "truth through the codec": lambda case: through_codec(case.family, case.clip, case.edit, settings_for(case.seed)),
}


def methods(output: Path, scenes: int, seeds: int, reporter: Reporter) -> Path:
    """Region PSNR of every row on `scenes` scenes times `seeds` seeds; writes `methods.csv`, `methods.md` and a sheet per scene."""
    output.mkdir(parents=True, exist_ok=True)
    device = pick_device()
    family = load_family("tiny", device, torch.float32)
    scores: dict[str, list[float]] = {row: [] for row in ROWS}
    names: list[str] = []
    total = scenes * seeds * len(ROWS)
    for seed in range(seeds):
        for number, scene in enumerate(draw_scenes(scenes, seed)):
            edit = true_edit(scene, SIZE, FRAMES)
            case = Case(family, edit, clip_of(edit, settings_for(seed)), seed)
            names.append(f"{scene.name} {seed}.{number}")
            shown = [edit.source]
            for row, make in ROWS.items():
                shown.append(make(case))
                scores[row].append(region_psnr(shown[-1], edit))
                reporter.step("methods", sum(map(len, scores.values())), total, f"{names[-1]}: {row} {scores[row][-1]:.2f} dB")
            save_image(
                output / f"{seed}_{number:02d}_{scene.name}.png", contact_sheet([*shown, edit.truth], ["source", *ROWS, "truth"], 9, 64)
            )
            _write_csv(output / "methods.csv", names, scores)
    table = output / "methods.md"
    table.write_text(_markdown(scores, len(names)), "utf-8")
    return table


def _write_csv(path: Path, names: list[str], scores: dict[str, list[float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", *names])
        writer.writerows([row, *(f"{value:.3f}" for value in values)] for row, values in scores.items())


def _markdown(scores: dict[str, list[float]], count: int) -> str:
    lines = [
        f"Region PSNR against the truth, dB, mean and 95 % interval over {count} scenes",
        "",
        "| method | mean | interval |",
        "|---|---|---|",
    ]
    for row, values in scores.items():
        half = 1.96 * float(np.std(values, ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
        lines.append(f"| {row} | {np.mean(values):.2f} | ±{half:.2f} |")
    return "\n".join(lines) + "\n"
