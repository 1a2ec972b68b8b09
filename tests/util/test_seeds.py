"""Random numbers as a function of keys."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semi_nnunet.util.seeds import derived_seed, seeded

Key = st.integers() | st.text()
Keys = st.lists(Key, max_size=5).map(tuple)


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def states() -> tuple[str, str, bytes]:
    """Return the states of the three global generators."""
    return (
        repr(random.getstate()),
        repr(np.random.get_state()),
        torch.get_rng_state().numpy().tobytes(),
    )


@given(Keys)
def test_a_seed_is_a_63_bit_number_that_every_generator_takes(keys):
    seed = derived_seed(*keys)
    assert 0 <= seed < 2**63 and seed == derived_seed(*keys)
    torch.Generator().manual_seed(seed)
    np.random.default_rng(seed)


@given(Keys, Keys)
def test_different_keys_give_different_seeds(first, second):
    assert (derived_seed(*first) == derived_seed(*second)) == (first == second)


@pytest.mark.parametrize(
    ("first", "second"),
    [((1,), (1, 0)), ((0, 1), (2**32,)), (("1",), (1,)), (("a", "b"), ("ab",)), ((), (0,))],
)
def test_similar_keys_give_different_seeds(first, second):
    assert derived_seed(*first) != derived_seed(*second)


def test_a_numpy_integer_counts_as_its_number():
    assert derived_seed(np.int64(3), "x") == derived_seed(3, "x")


def test_a_seed_is_the_same_on_every_machine():
    assert derived_seed(3, "step", 7) == 2858954562757830681


def test_seeds_of_following_steps_are_spread_evenly():
    seeds = [derived_seed(0, "step", step, 0) / 2**63 for step in range(2000)]
    assert len(set(seeds)) == 2000
    counts, _ = np.histogram(seeds, bins=10, range=(0, 1))
    assert counts.min() > 140 and counts.max() < 260


def test_equal_keys_give_equal_numbers_whatever_was_drawn_earlier():
    with seeded(1, "labelled", 5):
        first = draw()
    draw()
    with seeded(1, "labelled", 5):
        assert draw() == first


def test_different_keys_give_different_numbers_in_every_generator():
    with seeded(1, "labelled", 5):
        first = draw()
    for keys in ((1, "labelled", 6), (2, "labelled", 5), (1, "unlabelled", 5)):
        with seeded(*keys):
            assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_the_global_generators_are_untouched_afterwards():
    initial = states()
    with seeded(3):
        draw()
    assert states() == initial


def test_the_global_generators_are_untouched_after_an_exception():
    initial = states()
    with pytest.raises(KeyError), seeded(3):
        draw()
        raise KeyError
    assert states() == initial


def test_blocks_can_be_nested():
    with seeded(1):
        draw()
        expected = draw()
    with seeded(1):
        draw()
        with seeded(2):
            draw()
        assert draw() == expected
