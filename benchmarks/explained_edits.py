"""The explained edit compared with the classical baselines, without training.

`PYTHONPATH=src python benchmarks/explained_edits.py [FOLDER --half seen]`: region PSNR (loose box, all frames but the first) by kind on the
thirteen drawn scenes, or on a folder that `real_scenes.py` wrote. `--references` edits later frames too. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lora_edit.evaluation.psnr import psnr
from lora_edit.models.families.embedded.loading import load_tiny
from lora_edit.studies.scene_folder import SceneFolder
from lora_edit.studies.scene_kinds import draw_scenes
from lora_edit.studies.scenes import TrueEdit, render_true_edit
from lora_edit.studies.trial import SceneTrial
from lora_edit.types import Size

MOST = 60.0
"""PSNR that an exact frame counts as, in dB."""


def edits(folder: Path | None, half: str, seed: int) -> Iterator[TrueEdit]:
    """Yield the scenes of a folder, or drawn ones."""
    if folder is None:
        yield from (render_true_edit(scene, Size(96, 96), 17) for scene in draw_scenes(13, seed))
        return
    scenes = SceneFolder(folder, half, None)
    yield from (scenes.read_scene(line) for line in scenes.select_lines(()))


def measure(edit: TrueEdit, references: int) -> tuple[str, dict[str, float]]:
    """Measure one scene; returns its kind and the rows' values."""
    torch.set_num_threads(1)
    trial = SceneTrial(load_tiny(torch.device("cpu"), torch.float32), 0, edit)
    classical = (trial.run_flow_warp(), trial.run_colour_map(), trial.run_moving_layer())
    rows = (trial.copy_source(), *classical, *trial.select_best(classical), trial.propagate_edit(references))
    box, shown = trial.build_clip(trial.resolve_settings()).edit_mask.frames, set(rows[-1].reference_indices)
    judged = [t for t in range(1, len(edit.source)) if t not in shown]
    return edit.name, {row.label: min(MOST, psnr(row.frames[judged], edit.truth[judged], box[judged])) for row in rows}


def main() -> None:
    """Print one row per method, one column per kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--half", default="seen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--references", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    table: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ProcessPoolExecutor(args.workers) as pool:
        for kind, rows in pool.map(partial(measure, references=args.references), edits(args.folder, args.half, args.seed)):
            for label, value in rows.items():
                table[label][kind].append(value)
    kinds = list(next(iter(table.values())))
    print("| | " + " | ".join(kinds) + " | mean |")
    print("|---" * (len(kinds) + 2) + "|")
    for label, by_kind in table.items():
        cells = [f"{np.mean(by_kind[kind]):.1f}" for kind in kinds]
        print(f"| {label} | " + " | ".join(cells) + f" | {np.mean([v for values in by_kind.values() for v in values]):.2f} |")


if __name__ == "__main__":
    main()
