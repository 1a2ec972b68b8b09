"""How often labels of people are drawn where others are a model's."""

from __future__ import annotations

import numpy as np
import pytest

from semi_nnunet.data.layout import PSEUDO_LABELLED_FILE
from semi_nnunet.data.sampling import pseudo_labelled_cases, sampling_probabilities
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json

CASES = ["a", "b", "p", "q", "r"]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_share_is_that_of_the_labelled_cases(share):
    probabilities = sampling_probabilities(CASES, {"p", "q", "r", "not trained on"}, share)
    assert probabilities is not None
    np.testing.assert_allclose(probabilities, [share / 2] * 2 + [(1 - share) / 3] * 3)
    assert np.isclose(probabilities.sum(), 1)


def test_without_a_share_all_are_as_likely():
    assert sampling_probabilities(CASES, {"p"}, None) is None


@pytest.mark.parametrize("pseudo, which", [(set(), "none"), (set(CASES), "all")])
def test_a_share_of_one_kind_is_refused(pseudo, which):
    with pytest.raises(UserError, match=f"where {which} of 5 are pseudo-labelled"):
        sampling_probabilities(CASES, pseudo, 0.5)


def test_a_data_set_without_a_list_has_none(tmp_path):
    assert pseudo_labelled_cases(tmp_path) == set()
    write_json(tmp_path / PSEUDO_LABELLED_FILE, ["p"])
    assert pseudo_labelled_cases(tmp_path) == {"p"}
