"""Intensities as grey levels."""

from __future__ import annotations

import numpy as np

from semi_nnunet.util.greys import greys


def test_values_in_the_range_are_scaled_and_others_are_black_or_white() -> None:
    assert greys(np.array([-9.0, 10.0, 15.0, 20.0, 99.0]), 10, 20).tolist() == [0, 0, 0.5, 1, 1]


def test_an_image_of_one_value_is_black() -> None:
    assert greys(np.full((2, 2), 7.0), 7, 7).tolist() == [[0, 0], [0, 0]]
