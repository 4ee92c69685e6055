from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safn.rescaling import Grid, rescale


def test_rescale():
    images = torch.rand(1, 3, 40, 100)
    assert rescale(images, 1) is images
    assert rescale(images, 0.5).shape == (1, 3, 32, 50)  # at least 32 pixels
    assert rescale(images, 1.5).shape == (1, 3, 60, 150)
    assert rescale(torch.zeros(1, 1, 448, 448), 0.75).shape[-2:] == (336, 336)
    assert rescale(torch.zeros(1, 1, 375, 500), 1, Grid(16, 0)).shape[-2:] == (368, 496)
    assert rescale(torch.zeros(1, 1, 375, 500), 0.5, Grid(8, 1)).shape[-2:] == (185, 249)
    assert rescale(torch.zeros(1, 1, 5, 320), 1, Grid(16, 0)).shape[-2:] == (32, 320)
    stripes = torch.tensor([0.0, 1.0]).repeat(32)[None, None, None].expand(1, 1, 64, 64)
    inner = rescale(stripes, 0.5)[..., 2:-2]
    assert inner.std() < 0.2 and abs(inner.mean() - 0.5) < 0.01  # antialiased


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 90), st.integers(1, 90), st.floats(0.01, 2), st.integers(0, 99))
def test_rescaled_images_have_their_size_and_stay_in_range(height, width, scale, seed):
    images = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    found = rescale(images, scale)
    expected = [max(32, round(side * scale)) for side in (height, width)]
    assert list(found.shape) == [1, 3, *expected] and found.isfinite().all()
    assert images.min() - 1e-6 <= found.min() and found.max() <= images.max() + 1e-6


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), "0.5"])
def test_a_scale_that_is_not_above_0_is_refused(scale):
    with pytest.raises(ValueError, match=r"scale=.*; valid: a number above 0"):
        rescale(torch.zeros(1, 3, 40, 40), scale)
