"""Table 1's question on scenes with truth: what each part of the method adds (paper 3.1 to 3.3, table 3), and what ours adds."""

from __future__ import annotations

import csv
from collections.abc import Iterator
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
from lora_edit.studies.runner import (
    clip_of,
    generate_in_memory,
    learn_appearance,
    region_psnr,
    settings_for,
    through_codec,
    train_in_memory,
)
from lora_edit.studies.scenes import TrueEdit, true_edit
from lora_edit.types import Size
from lora_edit.video.sheet import contact_sheet, save_image

SIZE, FRAMES, REFERENCES = Size(64, 64), 17, (8, 16)
_PLAIN, _NAIVE = "training.recolour=0.0", "method.conditioning=first-frame"


@dataclass(frozen=True)
class Case:
    """One scene and seed, with the model to try on it."""

    family: Family
    edit: TrueEdit
    seed: int

    def clip(self, references: tuple[int, ...] = ()) -> Clip:
        """The scene as a person would hand it over."""
        return clip_of(self.edit, settings_for(self.seed), references)

    def generate(self, *assignments: str) -> torch.Tensor:
        """The edited clip with the adapter as it is."""
        return generate_in_memory(self.family, self.clip(), settings_for(self.seed, *assignments))


def untrained_rows(case: Case) -> Iterator[tuple[str, torch.Tensor]]:
    """What needs no training."""
    clip = case.clip()
    yield "no edit", case.edit.source
    yield "flow warp", flow_warp(case.edit.source, clip.first_frame, clip.edit_mask)
    yield "truth through the codec", through_codec(case.family, clip, case.edit, settings_for(case.seed))
    train_in_memory(case.family, clip, settings_for(case.seed, "training.motion_steps=0"))
    yield "base, first frame given", case.generate(_NAIVE)
    yield "base, mask given", case.generate()


def naive_rows(case: Case) -> Iterator[tuple[str, torch.Tensor]]:
    """Eq. 1, and the same LoRA with Eq. 3's blending."""
    train_in_memory(case.family, case.clip(), settings_for(case.seed, _NAIVE, _PLAIN))
    yield "naive LoRA (Eq. 1)", case.generate(_NAIVE)
    yield "feature-level (Eq. 3)", case.generate("method.conditioning=feature-level")


def method_rows(case: Case) -> Iterator[tuple[str, torch.Tensor]]:
    """The paper's method."""
    train_in_memory(case.family, case.clip(), settings_for(case.seed, _PLAIN))
    yield "mask-aware motion LoRA (3.3.1)", case.generate()
    learn_appearance(case.family, case.clip(REFERENCES), settings_for(case.seed, _PLAIN))
    yield "motion + appearance, 2 references (3.3.2)", case.generate()


def debiased_rows(case: Case) -> Iterator[tuple[str, torch.Tensor]]:
    """The method with recoloured motion samples."""
    train_in_memory(case.family, case.clip(), settings_for(case.seed))
    yield "mask-aware, debiased (ours)", case.generate()
    learn_appearance(case.family, case.clip(REFERENCES), settings_for(case.seed))
    yield "debiased motion + appearance (ours)", case.generate()


GROUPS = (untrained_rows, naive_rows, method_rows, debiased_rows)


def methods(output: Path, scenes: int, seeds: int, reporter: Reporter) -> Path:
    """Region PSNR of every row on `scenes` scenes times `seeds` seeds; writes `methods.csv`, `methods.md` and a sheet per scene."""
    output.mkdir(parents=True, exist_ok=True)
    device = pick_device()
    family = load_family("tiny", device, torch.float32)
    scores: dict[str, list[float]] = {}
    names: list[str] = []
    total = scenes * seeds * len(GROUPS)
    for seed in range(seeds):
        for number, scene in enumerate(draw_scenes(scenes, seed)):
            edit = true_edit(scene, SIZE, FRAMES)
            names.append(f"{scene.name} {seed}.{number}")
            shown = {"source": edit.source}
            for group in GROUPS:
                shown |= dict(group(Case(family, edit, seed)))
                reporter.step("methods", (len(names) - 1) * len(GROUPS) + GROUPS.index(group) + 1, total, names[-1])
            for row, frames in list(shown.items())[1:]:
                scores.setdefault(row, []).append(region_psnr(frames, edit))
            sheet = contact_sheet([*shown.values(), edit.truth], [*shown, "truth"], 9, 64)
            save_image(output / f"{seed}_{number:02d}_{scene.name}.png", sheet)
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
