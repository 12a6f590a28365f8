"""LPIPS with random weights: properties that hold for any weights."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from evaluation.pictures import box, still, texture
from lora_edit.errors import MaskError, ModelError, VideoError
from lora_edit.evaluation import lpips as module
from lora_edit.evaluation.lpips import CHANNELS, CONVOLUTION_INDICES, Lpips, load_lpips, lpips, weighted_mean


@pytest.fixture(scope="module")
def model() -> Lpips:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Lpips().eval()


def test_equal_pictures_have_zero_distance_and_lpips_is_symmetric(model: Lpips) -> None:
    first, second = still(2, seed=1), still(2, seed=2)
    assert lpips(model, first, first) == 0
    assert lpips(model, first, second) == pytest.approx(lpips(model, second, first), rel=1e-5)
    assert lpips(model, first, second) > 0


def test_larger_change_has_larger_distance(model: Lpips) -> None:
    clip = still()
    similar, different = clip + 2, clip.flip(2)
    assert lpips(model, similar, clip) < lpips(model, different, clip)


def test_full_mask_equals_no_mask(model: Lpips) -> None:
    one, other = still(seed=1), still(seed=2)
    everything = torch.ones(one.shape[:3], dtype=torch.bool)
    assert lpips(model, one, other, everything) == pytest.approx(lpips(model, one, other), rel=1e-5)


def test_only_region_counts(model: Lpips) -> None:
    clip = texture(64, 512)[None]
    changed = clip.clone()
    changed[:, :, :64] = 255 - changed[:, :, :64]
    near, far = torch.zeros(1, 64, 512, dtype=torch.bool), torch.zeros(1, 64, 512, dtype=torch.bool)
    near[:, :, :64] = True
    far[:, :, 320:] = True  # outside the receptive field of the deepest layer
    assert lpips(model, changed, clip, far) == 0
    assert lpips(model, changed, clip, near) > lpips(model, changed, clip) > 0


def test_frames_without_region_are_ignored(model: Lpips) -> None:
    one, other = still(2, seed=1), still(2, seed=2)
    where = box(one)
    alone = lpips(model, one[:1], other[:1], where[:1])
    where[1] = False
    assert lpips(model, one, other, where) == pytest.approx(alone)


def test_cells_are_weighted_by_region_coverage() -> None:
    layer = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    where = torch.zeros(4, 4, dtype=torch.bool)
    where[:2, :3] = True  # all of the first cell, half of the second
    assert weighted_mean(layer, where) == pytest.approx((1 + 0.5 * 3) / 1.5)


def test_matches_formula_of_paper(model: Lpips) -> None:
    """An independent implementation by cosine distance, since features have length 1 unless they are all zero."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        heads = [torch.rand(count) for count in CHANNELS]
    weighted = Lpips().eval()
    weighted.load_state_dict(model.state_dict() | {f"heads.{layer}": head for layer, head in enumerate(heads)})
    one, other = still(1, seed=1), still(1, seed=2)
    mean, std = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    values = [((clip.float() / 127.5 - 1 - mean) / std).permute(0, 3, 1, 2) for clip in (one, other)]
    total, layer = 0.0, 0
    with torch.no_grad():
        for part in weighted.features:
            values = [part(value) for value in values]
            if isinstance(part, torch.nn.ReLU):
                first, second = (functional.normalize(value, dim=1) for value in values)
                total += float(((first - second) ** 2 * heads[layer].view(1, -1, 1, 1)).sum(1).mean())
                layer += 1
    assert lpips(weighted, one, other) == pytest.approx(total, rel=1e-4)


def test_invalid_shapes_raise(model: Lpips) -> None:
    clip = still()
    with pytest.raises(VideoError, match="32 pixels"):
        lpips(model, clip[:, :16], clip[:, :16])
    with pytest.raises(VideoError, match="give the clip to compare with"):
        lpips(model, clip, clip[:1])
    with pytest.raises(MaskError, match="no pixel"):
        lpips(model, clip, clip, torch.zeros(clip.shape[:3], dtype=torch.bool))


def test_weights_load_from_published_files(model: Lpips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = model.state_dict()
    backbone = {f"features.{n}.{kind}": state[f"features.{n}.{kind}"] for n in CONVOLUTION_INDICES for kind in ("weight", "bias")}
    heads = {f"lin{n}.model.1.weight": torch.full((1, count, 1, 1), 0.5) for n, count in enumerate(CHANNELS)}
    with pytest.raises(ModelError, match=r"alexnet-owt-7be5be79\.pth: no such file, .* `curl "):
        load_lpips(torch.device("cpu"), tmp_path)
    torch.save(backbone | {"classifier.1.weight": torch.zeros(1)}, tmp_path / module.BACKBONE_FILE.name)
    with pytest.raises(ModelError, match="damaged"):
        load_lpips(torch.device("cpu"), tmp_path)
    monkeypatch.setattr(module, "BACKBONE_FILE", with_hash(tmp_path, module.BACKBONE_FILE))
    with pytest.raises(ModelError, match=r"LPIPS_v0\.1_alex-df73285e\.pth: no such file, .* `hf download "):
        load_lpips(torch.device("cpu"), tmp_path)
    torch.save(heads, tmp_path / module.HEADS_FILE.name)
    monkeypatch.setattr(module, "HEADS_FILE", with_hash(tmp_path, module.HEADS_FILE))
    loaded = load_lpips(torch.device("cpu"), tmp_path)
    assert torch.equal(loaded.features[10].weight, model.features[10].weight)
    assert [head.tolist() for head in loaded.heads] == [[0.5] * count for count in CHANNELS]


def with_hash(folder: Path, file: module.WeightFile) -> module.WeightFile:
    return replace(file, sha256=hashlib.sha256((folder / file.name).read_bytes()).hexdigest())
