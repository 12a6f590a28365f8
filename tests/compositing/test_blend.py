"""Tests of compositing: exact where alpha is 0 or 1."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lora_edit.compositing.blend import composite

bytes_ = hnp.arrays(np.uint8, (2, 4, 5, 3)).map(torch.from_numpy)
weights = hnp.arrays(np.float32, (2, 4, 5), elements=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32)))


@settings(max_examples=50, deadline=None)
@given(bytes_, bytes_, weights.map(torch.from_numpy))
def test_exact_at_zero_and_one_and_between_elsewhere(source: torch.Tensor, generated: torch.Tensor, alpha: torch.Tensor) -> None:
    out = composite(source, generated, alpha)
    assert torch.equal(out[alpha == 0], source[alpha == 0])
    assert torch.equal(out[alpha == 1], generated[alpha == 1])
    assert (out >= torch.minimum(source, generated)).all()
    assert (out <= torch.maximum(source, generated)).all()


def test_blend_rounds_to_nearest() -> None:
    out = composite(
        torch.zeros(1, 1, 1, 3, dtype=torch.uint8), torch.full((1, 1, 1, 3), 255, dtype=torch.uint8), torch.full((1, 1, 1), 0.25)
    )
    assert out.unique().tolist() == [64]
