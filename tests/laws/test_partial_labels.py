"""Law m: unannotated classes of a case teach no trainer anything, and count in no metric."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from semi_nnunet.training.companions import select_full_resolution
from semi_nnunet.util.files import read_json
from tests.trainers import (
    TRAINERS,
    WITHOUT_RAMP,
    each_of,
    partially_annotated,
    run_epochs,
    same_weights,
    weights_of,
)

every_trainer = each_of(TRAINERS)
kinds = pytest.mark.parametrize(
    ("kind", "configuration"),
    [("labels", "2d"), ("ignore", "3d_fullres"), ("regions_ignore", "2d")],
)


def find_partial_batch(trainer):
    """Return a batch with a patch of a case that does not annotate all classes."""
    while True:
        labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
        if not labelled.annotated.all():
            return labelled, unlabelled


def change_unannotated(
    logits: torch.Tensor, annotated: torch.Tensor, exclusive: bool
) -> torch.Tensor:
    """Return other logits with the same predictions for annotated classes.

    Probability moves between the background and unannotated classes; regions are arbitrary.
    """
    logits, spatial = logits.clone(), logits.shape[2:]
    for sample, channel in (~annotated).nonzero().tolist():
        if exclusive:
            total = torch.logaddexp(logits[sample, 0], logits[sample, channel])
            share = torch.rand(spatial).clamp(0.01, 0.99)
            logits[sample, 0] = total + share.log()
            logits[sample, channel] = total + (1 - share).log()
        else:
            logits[sample, channel] = 3 * torch.randn(spatial)
    return logits


@pytest.mark.law("m")
@every_trainer
@kinds
def test_supervised_terms_do_not_depend_on_unannotated_classes(
    name, kind, configuration, make_trainer, prepared_dataset
):
    dataset = partially_annotated(prepared_dataset(kind, 1), kind)
    trainer = make_trainer(name, configuration, dataset=dataset, unlabelled_weight=0.0)
    labelled, unlabelled = find_partial_batch(trainer)
    outputs, values = trainer.outputs, []
    for change in (False, True):

        def compute_outputs(x, network=None, change=change):
            output = outputs(x, network)
            if not (change and torch.equal(x, labelled.x)):
                return output
            annotated, exclusive = labelled.annotated, trainer.exclusive
            if isinstance(output, list):
                return [change_unannotated(level, annotated, exclusive) for level in output]
            return change_unannotated(output, annotated, exclusive)

        trainer.outputs = compute_outputs
        torch.manual_seed(0)
        terms = trainer.terms(labelled, unlabelled)
        terms = [term for term in terms if term.name.startswith("supervised")]
        values.append(torch.stack([term.value for term in terms]))
    assert len(values[0]) >= 1
    torch.testing.assert_close(values[0], values[1], atol=1e-4, rtol=1e-4)


@pytest.mark.law("m")
@every_trainer
@kinds
def test_every_trainer_learns_from_partial_labels(
    name, kind, configuration, make_trainer, prepared_dataset
):
    dataset = partially_annotated(prepared_dataset(kind, 1), kind)
    settings = {"class_weights_from": "labelled", **WITHOUT_RAMP}
    trainer = make_trainer(name, configuration, dataset=dataset, **settings)
    initial = weights_of(trainer.bare_network)
    for _ in range(2):
        trainer.train_step(next(trainer.dataloader_train))
    trainer.non_finite.check(now=True)
    weights = weights_of(trainer.bare_network)
    assert not same_weights(initial, weights)
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.law("m")
@every_trainer
def test_cases_that_annotate_all_classes_train_as_without_the_entry(
    name, make_trainer, prepared_dataset
):
    plain, partial = prepared_dataset("labels", 1), partially_annotated(prepared_dataset())
    all_classes = partial.dataset_json["annotated"]["phantom_0003"]
    description = {**partial.dataset_json, "annotated": {"phantom_*": all_classes}}
    weights = []
    for dataset in (plain, SimpleNamespace(plans=plain.plans, dataset_json=description)):
        trainer = make_trainer(name, dataset=dataset, **WITHOUT_RAMP)
        for _ in range(2):
            trainer.train_step(next(trainer.dataloader_train))
        weights.append(weights_of(trainer.bare_network))
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, atol=2e-4, rtol=1e-3)


class ConstantNetwork(nn.Module):
    """A network that predicts the same logits for any image."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits


@pytest.mark.law("m")
@pytest.mark.parametrize("kind", ["labels", "ignore", "regions", "regions_ignore"])
def test_validation_counts_a_case_for_its_annotated_classes(kind, make_trainer, prepared_dataset):
    dataset = partially_annotated(prepared_dataset(kind, 1), kind)
    settings = {"deep_supervision": False, "labelled_batch_size": 4}
    trainer = make_trainer("SemiMeanTeacherTrainer", dataset=dataset, fold="all", **settings)
    manager = trainer.label_manager
    heads, first = manager.num_segmentation_heads, 1 if trainer.exclusive else 0
    while True:
        batch = next(trainer.dataloader_val)
        raw = batch[0]["validation"]
        annotated = trainer.annotated_classes.rows(raw["keys"], torch.device("cpu"))
        if not annotated.all() and annotated.all(1).any():
            break
    target = select_full_resolution(raw["target"])
    for sample in range(len(annotated)):  # as preprocess verifies
        for channel in (~annotated[sample]).nonzero().flatten().tolist():
            if trainer.exclusive:
                target[sample][target[sample] == channel] = 0
            else:
                target[sample, channel] = 0
    logits = torch.randn(len(annotated), heads, *target.shape[2:])
    trainer.prediction_network = lambda: network
    network = ConstantNetwork(logits)
    with torch.no_grad():
        output = trainer.validation_step(batch)
    onehot, mask = trainer.annotation(target)
    predicted = (logits > 0) if not trainer.exclusive else logits == logits.amax(1, keepdim=True)
    counts = np.zeros((4, heads))
    for sample, channel in annotated.nonzero().tolist():
        inside = mask[sample, 0]
        p, t = predicted[sample, channel][inside], onehot[sample, channel][inside] > 0
        counts[:, channel] += [int(c.sum()) for c in (p & t, p & ~t, t & ~p, inside)]
    for key, expected in zip(("tp_hard", "fp_hard", "fn_hard", "voxels"), counts, strict=True):
        np.testing.assert_array_equal(output[key], expected[first:])
    assert np.isfinite(output["loss"])
    network.logits = change_unannotated(logits, annotated, trainer.exclusive)
    with torch.no_grad():
        assert trainer.validation_step(batch)["loss"] == pytest.approx(output["loss"], abs=1e-4)


@pytest.mark.law("m")
def test_the_final_validation_counts_a_case_for_its_annotated_classes(
    make_trainer, prepared_dataset
):
    dataset = partially_annotated(prepared_dataset())
    entry = {"phantom_*": ["large", "small"], "phantom_0003": ["pair"]}
    dataset.dataset_json["annotated"] = entry
    log = []
    trainer = make_trainer("SemiMeanTeacherTrainer", dataset=dataset, fold="all", epochs=1)
    trainer.say = log.append
    run_epochs(trainer, 1)
    trainer.on_train_end()
    trainer.perform_actual_validation()
    summary = read_json(Path(trainer.output_folder) / "validation" / "summary.json")
    dice = {key: [] for key in "123"}
    for case in summary["metric_per_case"]:
        annotated = "2" if "phantom_0003" in case["prediction_file"] else "13"
        for key, metrics in case["metrics"].items():
            assert np.isnan(metrics["n_ref"]) == (key not in annotated)
            dice[key].append(metrics["Dice"])
    means = [np.nanmean(values) for values in dice.values()]
    assert [summary["mean"][key]["Dice"] for key in dice] == pytest.approx(means)
    mean = summary["foreground_mean"]["Dice"]
    assert mean == pytest.approx(np.mean(means)) and any(str(mean) in line for line in log)
