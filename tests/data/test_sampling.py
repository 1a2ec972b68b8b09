"""How often labels of people are drawn where others are a model's."""

from __future__ import annotations

import numpy as np
import pytest

from semi_nnunet.data.layout import PSEUDO_LABELLED_FILE
from semi_nnunet.data.sampling import pseudo_labelled_cases, sampling_probabilities
from semi_nnunet.files import write_json

CASES = ["a", "b", "p", "q", "r"]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_share_is_that_of_the_labelled_cases(share):
    probabilities = sampling_probabilities(CASES, {"p", "q", "r", "not trained on"}, share)
    assert probabilities is not None
    np.testing.assert_allclose(probabilities, [share / 2] * 2 + [(1 - share) / 3] * 3)
    assert np.isclose(probabilities.sum(), 1)


@pytest.mark.parametrize("pseudo, share", [(set(), 0.5), (set(CASES), 0.5), ({"p"}, None)])
def test_where_there_is_one_kind_or_no_share_all_are_as_likely(pseudo, share):
    assert sampling_probabilities(CASES, pseudo, share) is None


def test_a_data_set_without_a_list_has_none(tmp_path):
    assert pseudo_labelled_cases(tmp_path) == set()
    write_json(tmp_path / PSEUDO_LABELLED_FILE, ["p"])
    assert pseudo_labelled_cases(tmp_path) == {"p"}
