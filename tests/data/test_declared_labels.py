"""What the labels of dataset.json declare."""

import pytest

from semi_nnunet.data.declared_labels import declared_classes, declared_values, has_regions

LABELS = {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2], "rim": 1, "ignore": 3}


def test_classes_and_regions_have_their_values():
    assert declared_classes(LABELS) == {"liver": (1,), "spleen": (2,)}
    assert declared_classes(REGIONS) == {"whole": (1, 2), "core": (2,), "rim": (1,)}
    assert declared_values(LABELS) == declared_values(REGIONS) == {0, 1, 2, 3}
    assert has_regions(REGIONS) and not has_regions(LABELS)
    assert not has_regions({"background": 0, "liver": [1]})  # as nnU-Net


@pytest.mark.parametrize("value", [1.5, "liver", None])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        declared_values({"background": 0, "liver": value})
