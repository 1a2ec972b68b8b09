"""The labelling of dataset.json is read and checked before the work."""

import json

import pytest
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from semi_nnunet.evaluation.labelling import read_labelling
from semi_nnunet.util.errors import UserError
from tests.evaluation.folders import LABELS, REGIONS, evaluate, folders


@pytest.mark.parametrize(
    ("labels", "classes", "allowed", "ignore"),
    [
        (LABELS, {"liver": (1,), "tumour": (2,)}, {0, 1, 2}, None),
        (REGIONS, {"whole": (1, 2), "core": (2,)}, {0, 1, 2, 3}, 3),
    ],
)
def test_values_of_classes_and_regions_are_read(labels, classes, allowed, ignore, tmp_path):
    _, references = folders(tmp_path, labels)
    example = str(references / "a.nii.gz")
    labelling = read_labelling(tmp_path / "data" / "dataset.json", example)
    assert (labelling.classes, labelling.allowed, labelling.ignore) == (classes, allowed, ignore)
    assert labelling.reader is SimpleITKIO


def test_the_reader_fits_the_files_and_the_description_may_have_any_name(tmp_path):
    _, references = folders(tmp_path, ending=".png")
    other_name = (tmp_path / "data" / "dataset.json").rename(tmp_path / "other.json")
    labelling = read_labelling(other_name, str(references / "a.png"))
    assert labelling.reader is NaturalImage2DIO
    with pytest.raises(UserError, match=r"absent.json cannot be used"):
        read_labelling(tmp_path / "absent.json", str(references / "a.png"))


def test_regions_can_be_measured_without_their_order(tmp_path):
    """The order of regions matters only for making predictions."""
    predictions, references = folders(tmp_path, REGIONS)
    assert evaluate(predictions, references) == 0
    first = (predictions / "metrics.csv").read_text()
    description = tmp_path / "data" / "dataset.json"
    content = json.loads(description.read_text())
    del content["regions_class_order"]
    description.write_text(json.dumps(content))
    assert evaluate(predictions, references) == 0
    assert (predictions / "metrics.csv").read_text() == first


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"background": 0}, "name a class"),
        ({"background": 0, "ignore": 1}, "name a class"),
        ({"background": 0, "liver": 1.5}, "to whole numbers"),
        ({"background": 0, "liver": 1, "ignore": [2]}, "'ignore' must be"),
    ],
)
def test_labels_that_cannot_be_measured_are_reported_before_the_work(labels, why, tmp_path, capsys):
    predictions, references = folders(tmp_path, labels)
    assert evaluate(predictions, references) == 2
    assert why in capsys.readouterr().err
    assert not (predictions / "metrics.csv").exists()
