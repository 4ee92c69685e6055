import numpy as np
import pytest

from benchmarks.attention_border import explained_by_border, measure


def test_weights_that_depend_on_the_border_alone_are_explained_by_it():
    frame = np.full((8, 10), 0.9)
    frame[[0, -1]] = frame[:, [0, -1]] = 0.3
    assert explained_by_border([frame, frame]) == pytest.approx(1)
    row = measure([frame])
    # 32 of 80 places lie along the border: 0.3 * 0.4 + 0.9 * 0.6, and 0.6 * sqrt(0.4 * 0.6)
    assert (row["mean 0"], row["spread 0"]) == pytest.approx((0.66, 0.2939), abs=1e-4)
    assert (row["mean 1"], row["spread 1"]) == pytest.approx((0.9, 0))


def test_weights_that_depend_on_the_image_are_not_explained_by_the_border():
    half = np.zeros((8, 8))
    half[:, :4] = 1  # at every distance from the border as many places with 1 as with 0
    assert explained_by_border([half, half[:, ::-1]]) == pytest.approx(0)


def test_a_share_lies_between():
    frame = np.array([[0.0, 0, 0, 0], [0, 3, 1, 0], [0, 0, 0, 0]])
    # mean 1/3. Distance 0: deviation -1/3 at 10 places. Distance 1: 8/3 and 2/3, mean 5/3
    total = 10 / 9 + 64 / 9 + 4 / 9
    assert explained_by_border([frame]) == pytest.approx(1 - 2 / total)
