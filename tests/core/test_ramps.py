"""The factors of the unlabelled terms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semi_nnunet.core.ramps import gaussian_ramp, linear_ramp, ramp

SHAPES = ("gaussian", "linear", "constant")


@pytest.mark.parametrize(("fraction", "value"), [(0.0, 0.0067), (0.5, 0.287), (1.0, 1.0)])
def test_gaussian_ramp_has_the_published_values(fraction, value):
    assert gaussian_ramp(fraction * 40, 40) == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize("function", [gaussian_ramp, linear_ramp])
@pytest.mark.parametrize("step", [0, 7])
def test_a_ramp_without_length_is_one(function, step):
    assert function(step, 0) == 1.0


@given(st.floats(1, 1e6), st.floats(0, 2), st.floats(0, 2))
def test_ramps_rise_from_their_start_to_one_and_stay(length, a, b):
    low, high = sorted((a, b))
    for shape in SHAPES:
        assert 0 <= ramp(shape, low * length, length) <= ramp(shape, high * length, length) <= 1
        assert ramp(shape, 1.5 * length, length) == 1.0


def test_linear_ramp_is_the_fraction_of_the_length():
    assert [linear_ramp(step, 4) for step in (-1, 0, 1, 2, 4, 9)] == [0, 0, 0.25, 0.5, 1, 1]


def test_ramp_selects_by_name_and_refuses_another():
    assert ramp("gaussian", 3, 10) == gaussian_ramp(3, 10)
    assert ramp("linear", 3, 10) == linear_ramp(3, 10)
    assert ramp("constant", 0, 10) == 1.0
    with pytest.raises(ValueError, match="cosine"):
        ramp("cosine", 0, 10)
