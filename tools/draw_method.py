"""Draw the model's condition in every setting, for the documentation: `PYTHONPATH=src python tools/draw_method.py`.

Calls the functions of training and generation on a scene of the studies; no model is needed.
"""

from __future__ import annotations

from pathlib import Path

import torch

from lora_edit.conditioning.method import build_appearance_sample, build_inference_sample, build_motion_sample
from lora_edit.conditioning.sample import Sample
from lora_edit.masks.settings import MaskSettings
from lora_edit.masks.shapes import shape_mask, snap_to_cells, union_latent_frames
from lora_edit.propagation.predict import Propagation
from lora_edit.studies.scene_kinds import draw_scenes
from lora_edit.studies.scenes import render_true_edit
from lora_edit.types import Size
from lora_edit.video.ranges import to_frames, to_signed
from lora_edit.video.sheet import build_contact_sheet, save_image

TARGET = Path(__file__).parent.parent / "docs" / "images"


def white(mask: torch.Tensor) -> torch.Tensor:
    """M_cond `[1, T, H, W]` as frames: white is given."""
    return (mask[0] * 255).to(torch.uint8)[..., None].expand(-1, -1, -1, 3).contiguous()


def main() -> None:
    """Two sheets: whole clips (motion, inference), and one later frame (appearance)."""
    edit = render_true_edit(draw_scenes(1, 0, ("rotation",))[0], Size(96, 96), 17)
    masks = MaskSettings()
    region = shape_mask(edit.mask, masks.shape, masks.expand, masks.smooth)
    hole = union_latent_frames(snap_to_cells(region.frames, (8, 8)), 4)
    source, wanted = to_signed(edit.source), to_signed(edit.truth)
    learn, use = build_motion_sample(source, hole), build_inference_sample(source, wanted[:, 0], hole)
    propagation = Propagation(edit.source, {0: edit.truth[0]}, region.frames)
    predicted = list(propagation.predict_frames())
    doubt = torch.stack([torch.from_numpy(p.error).clamp(max=64) * 4 for p in predicted]).to(torch.uint8)
    rows = {
        "motion: V_cond, the source with the region withheld": to_frames(learn.v_cond),
        "motion and inference: M_cond, white = given": white(learn.m_cond),
        "motion: V_target, the source": edit.source,
        "inference: V_cond, the edited first frame in front": to_frames(use.v_cond),
        "inference, embedded model: the explained edit in the hole": torch.stack([torch.from_numpy(p.frame) for p in predicted]),
        "and the error that is expected of it": doubt[..., None].expand(-1, -1, -1, 3).contiguous(),
        "what inference should return: the true edit": edit.truth,
    }
    save_image(TARGET / "method.png", build_contact_sheet(list(rows.values()), list(rows), 9, 96))
    later: Sample = build_appearance_sample(source[:, 12], wanted[:, 12], hole[12])
    assert later.v_target is not None
    cells = [to_frames(later.v_cond), white(later.m_cond), to_frames(later.v_target)]
    save_image(TARGET / "appearance.png", build_contact_sheet([torch.cat(cells)], ["appearance: V_cond, M_cond, V_target"], 3, 96))


if __name__ == "__main__":
    main()
