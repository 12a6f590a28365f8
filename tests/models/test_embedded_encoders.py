"""The linear codec: locality, grouping and reconstruction."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from lora_edit.errors import ModelError
from lora_edit.models.families.embedded.encoders import LappedCodec, apply_lapping, build_cosine_basis, build_lapping_matrix
from lora_edit.models.families.embedded.loading import WEIGHTS_FOLDER, load_tiny


@pytest.fixture(scope="module")
def codec() -> LappedCodec:
    """Fitted to smooth random clips."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(12, 3, 3, 4, 4, generator=generator) * 2 - 1
    clips = torch.nn.functional.interpolate(coarse, (9, 32, 32), mode="trilinear", align_corners=True)
    return LappedCodec.fit(clips, z_dim=48).eval()


def test_basis_is_orthonormal() -> None:
    """The temporal basis."""
    basis = build_cosine_basis()
    torch.testing.assert_close(basis @ basis.T, torch.eye(4), atol=1e-6, rtol=0)


def test_smooth_clips_are_reconstructed(codec: LappedCodec) -> None:
    """Another clip of the same kind, better than 35 dB."""
    coarse = torch.rand(1, 3, 3, 4, 4, generator=torch.Generator().manual_seed(5)) * 1.6 - 0.8
    clip = torch.nn.functional.interpolate(coarse, (9, 32, 32), mode="trilinear", align_corners=True)
    latents = codec.encode(clip)
    assert latents.shape == (1, 48, 3, 4, 4)
    error = (codec.decode(latents) - clip).square().mean()
    assert 10 * torch.log10(4 / error) > 35


def test_lapping_is_inverted_exactly() -> None:
    """The pre-filter is orthogonal, and a flat picture stays flat."""
    matrix, picture = build_lapping_matrix(), torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(apply_lapping(apply_lapping(picture, matrix), matrix.T), picture, atol=1e-5, rtol=0)
    torch.testing.assert_close(apply_lapping(torch.ones(1, 24, 40), matrix), torch.ones(1, 24, 40), atol=1e-5, rtol=0)


def test_a_cell_depends_on_its_own_pixels_and_four_around(codec: LappedCodec) -> None:
    """Pixels in a hole affect the cells beside it only through their shared border, and no other time."""
    clip = torch.rand(1, 3, 9, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    changed = clip.clone()
    changed[:, :, 6, 12:16, 16:24] = 0
    difference = (codec.encode(clip) - codec.encode(changed)).abs().amax(1)[0] > 1e-6
    assert difference[2, 1, 2]
    assert not difference[:2].any()
    assert not difference[2, 0].any()
    assert not difference[2, 3].any()


def step_ratio(clips: torch.Tensor, codec: LappedCodec) -> float:
    """Return the mean step between columns at block borders of the reconstruction, divided by that inside blocks."""
    steps = codec.decode(codec.encode(clips)).diff(dim=-1).abs().mean((0, 1, 2, 3))
    return float(steps[7::8].mean() / torch.cat([steps[k::8] for k in range(7)]).mean())


def test_coarse_latents_show_few_block_edges() -> None:
    """With few channels, steps at block borders are far closer to those inside than without overlap."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(12, 3, 3, 9, 9, generator=generator) * 2 - 1
    clips = torch.nn.functional.interpolate(coarse, (5, 64, 64), mode="trilinear", align_corners=True)
    codec = LappedCodec.fit(clips, z_dim=6)
    plain = LappedCodec(z_dim=6, pairs=codec.config.pairs)
    plain.load_state_dict(codec.state_dict())
    plain.lapping_matrix.copy_(torch.eye(8))
    assert step_ratio(clips, codec) < 2 < 0.5 * step_ratio(clips, plain)


def test_a_still_block_has_the_same_values_in_frame_0_and_later(codec: LappedCodec) -> None:
    """So that appearance is carried through time by copying."""
    clip = (torch.rand(1, 3, 1, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1).expand(1, 3, 5, 8, 8)
    latents = codec.encode(clip)[0, :, :, 0, 0]
    still = codec.frequency == 0
    torch.testing.assert_close(latents[still, 0], latents[still, 1], atol=1e-4, rtol=1e-4)
    assert latents[~still, 1].abs().max() < 1e-4 if (~still).any() else True


def test_a_folder_of_another_model_is_named(tmp_path: Path) -> None:
    """Damaged and foreign folders; the message says what to do."""
    folder = tmp_path / "tiny"
    shutil.copytree(WEIGHTS_FOLDER, folder)
    config = folder / "transformer" / "config.json"
    for text in ("{", "[]", json.dumps(json.loads(config.read_text("utf-8")) | {"patch_size": 1.5})):
        config.write_text(text, "utf-8")
        with pytest.raises(ModelError, match=r"holds no weights of the embedded model .*; give --model tiny without a folder"):
            load_tiny(torch.device("cpu"), torch.float32, folder)
