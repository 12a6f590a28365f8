"""Preconditioning of the embedded model."""

from __future__ import annotations

import torch

from lora_edit.models.families.embedded.conditioning import compute_cell_std, precondition


def draw(time: float, std: float, count: int = 20_000) -> tuple[torch.Tensor, ...]:
    """Return noisy latents, start, true velocity and time of data with deviation `std` around a start."""
    generator = torch.Generator().manual_seed(0)
    start = torch.full((count, 1, 1, 1, 1), 0.7)
    data = start + std * torch.randn(start.shape, generator=generator)
    noise = torch.randn(start.shape, generator=generator)
    return (1 - time) * data + time * noise, start, noise - data, torch.full((count,), time)


def test_an_exact_prediction_leaves_no_remainder() -> None:
    noisy, start, velocity, time = draw(0.4, 0.0)
    expected, factor, _ = precondition(noisy, start, time, torch.zeros(1))
    assert torch.allclose(expected, velocity, atol=1e-5)
    assert float(factor.max()) == 0


def test_the_remainder_has_unit_variance_and_is_uncorrelated() -> None:
    for moment, std in ((0.1, 0.5), (0.5, 1.3), (0.95, 0.2), (1.0, 0.7)):
        noisy, start, velocity, time = draw(moment, std)
        expected, factor, shown = precondition(noisy, start, time, torch.tensor([std]))
        remainder = (velocity - expected) / factor
        assert abs(float(remainder.std()) - 1) < 0.02
        assert abs(float(shown.std()) - 1) < 0.02
        assert abs(float((remainder * shown).mean())) < 0.02


def test_each_channel_has_its_own_std() -> None:
    noisy = torch.randn(1, 2, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    both = precondition(noisy, torch.zeros_like(noisy), torch.tensor([0.5]), torch.tensor([0.1, 2.0]).view(1, 2, 1, 1, 1))
    alone = precondition(noisy[:, 1:], torch.zeros_like(noisy[:, 1:]), torch.tensor([0.5]), torch.tensor([2.0]))
    assert all(torch.equal(left[:, 1:], right) for left, right in zip(both, alone, strict=True))


def test_the_std_grows_with_the_expected_error() -> None:
    error = torch.full((1, 4, 1, 1, 2), 0.1)
    error[..., 1] = 0.3
    std = compute_cell_std(error, torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(std[0, :, 0, 0], torch.tensor([[0.1, 0.3], [0.2, 0.6]]))
