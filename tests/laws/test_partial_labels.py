"""Law m: what a case does not annotate teaches no trainer anything, and counts in no metric."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from semi_nnunet.training.companions import full_resolution
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


def partial_batch(trainer):
    """A batch with a patch of a case that does not annotate all."""
    while True:
        labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
        if not labelled.annotated.all():
            return labelled, unlabelled


def moved(logits: torch.Tensor, annotated: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Other predictions that say the same of the classes that are annotated.

    Probability moves between the background and classes that are not; such regions are anything.
    """
    logits, spatial = logits.clone(), logits.shape[2:]
    for sample, channel in (~annotated).nonzero().tolist():
        if exclusive:
            both = torch.logaddexp(logits[sample, 0], logits[sample, channel])
            share = torch.rand(spatial).clamp(0.01, 0.99)
            logits[sample, 0] = both + share.log()
            logits[sample, channel] = both + (1 - share).log()
        else:
            logits[sample, channel] = 3 * torch.randn(spatial)
    return logits


@every_trainer
@kinds
def test_m_supervised_terms_do_not_depend_on_what_is_not_annotated(
    name, kind, configuration, make_trainer, prepared_dataset
):
    dataset = partially_annotated(prepared_dataset(kind, 1), kind)
    trainer = make_trainer(name, configuration, dataset=dataset, **WITHOUT_RAMP)
    labelled, unlabelled = partial_batch(trainer)
    outputs, values = trainer.outputs, []
    for change in (False, True):

        def seen(x, network=None, change=change):
            found = outputs(x, network)
            if not (change and x is labelled.x):
                return found
            levels = found if isinstance(found, list) else [found]
            levels = [moved(level, labelled.annotated, trainer.exclusive) for level in levels]
            return levels if isinstance(found, list) else levels[0]

        trainer.outputs = seen
        torch.manual_seed(0)
        terms = [term for term in trainer.terms(labelled, unlabelled) if term.is_supervised]
        values.append(torch.stack([term.value for term in terms]))
    assert len(values[0]) >= 1
    torch.testing.assert_close(values[0], values[1], atol=1e-4, rtol=1e-4)


@every_trainer
@kinds
def test_m_every_trainer_learns_from_partial_labels(
    name, kind, configuration, make_trainer, prepared_dataset
):
    dataset = partially_annotated(prepared_dataset(kind, 1), kind)
    settings = {"class_weights_from": "labelled", **WITHOUT_RAMP}
    trainer = make_trainer(name, configuration, dataset=dataset, **settings)
    before = weights_of(trainer.bare_network)
    for _ in range(2):
        trainer.train_step(next(trainer.dataloader_train))
    trainer.non_finite.look(now=True)
    after = weights_of(trainer.bare_network)
    assert not same_weights(before, after)
    assert all(value.isfinite().all() for value in after.values())


@every_trainer
def test_m_cases_that_name_all_classes_are_as_if_nothing_was_said(
    name, make_trainer, prepared_dataset
):
    plain, partial = prepared_dataset("labels", 1), partially_annotated(prepared_dataset())
    every = partial.dataset_json["annotated"]["phantom_0003"]
    description = {**partial.dataset_json, "annotated": {"phantom_*": every}}
    after = []
    for dataset in (plain, SimpleNamespace(plans=plain.plans, dataset_json=description)):
        trainer = make_trainer(name, dataset=dataset, **WITHOUT_RAMP)
        for _ in range(2):
            trainer.train_step(next(trainer.dataloader_train))
        after.append(weights_of(trainer.bare_network))
    for key, value in after[0].items():
        torch.testing.assert_close(after[1][key], value, atol=2e-4, rtol=1e-3)


class Says(nn.Module):
    """A network that predicts the same logits of any image."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits


@pytest.mark.parametrize("kind", ["labels", "ignore", "regions", "regions_ignore"])
def test_m_validation_counts_a_case_for_what_it_annotates(kind, make_trainer, prepared_dataset):
    dataset = partially_annotated(prepared_dataset(kind, 1), kind)
    settings = {"deep_supervision": False, "labelled_batch_size": 4}
    trainer = make_trainer("SemiMeanTeacherTrainer", dataset=dataset, fold="all", **settings)
    manager = trainer.label_manager
    heads, first = manager.num_segmentation_heads, 1 if trainer.exclusive else 0
    while True:
        batch = next(trainer.dataloader_val)
        raw = batch[0]["validation"]
        told = trainer.annotated_classes.rows(raw["keys"], torch.device("cpu"))
        if not told.all() and told.all(1).any():
            break
    target = full_resolution(raw["target"])
    for sample in range(len(told)):  # as preprocess has verified
        for channel in (~told[sample]).nonzero().flatten().tolist():
            if trainer.exclusive:
                target[sample][target[sample] == channel] = 0
            else:
                target[sample, channel] = 0
    logits = torch.randn(len(told), heads, *target.shape[2:])
    trainer.prediction_network = lambda: network
    network = Says(logits)
    with torch.no_grad():
        found = trainer.validation_step(batch)
    onehot, mask = trainer.annotation(target)
    said = (logits > 0) if not trainer.exclusive else logits == logits.amax(1, keepdim=True)
    counts = np.zeros((4, heads))
    for sample, channel in told.nonzero().tolist():
        ours, theirs = said[sample, channel], onehot[sample, channel] > 0
        ours, theirs = (one[mask[sample, 0]] for one in (ours, theirs))
        parts = (ours & theirs, ours & ~theirs, theirs & ~ours, mask[sample, 0])
        counts[:, channel] += [int(part.sum()) for part in parts]
    for key, expected in zip(("tp_hard", "fp_hard", "fn_hard", "voxels"), counts, strict=True):
        np.testing.assert_array_equal(found[key], expected[first:])
    assert np.isfinite(found["loss"])
    before = found["loss"]
    network.logits = moved(logits, told, trainer.exclusive)
    with torch.no_grad():
        assert trainer.validation_step(batch)["loss"] == pytest.approx(before, abs=1e-4)


def test_m_the_final_validation_counts_a_case_for_what_it_annotates(make_trainer, prepared_dataset):
    dataset = partially_annotated(prepared_dataset())
    entry = {"phantom_*": ["large", "small"], "phantom_0003": ["pair"]}
    dataset.dataset_json["annotated"] = entry
    said = []
    trainer = make_trainer("SemiMeanTeacherTrainer", dataset=dataset, fold="all", epochs=1)
    trainer.say = said.append
    run_epochs(trainer, 1)
    trainer.on_train_end()
    trainer.perform_actual_validation()
    summary = read_json(Path(trainer.output_folder) / "validation" / "summary.json")
    left = {key: [] for key in "123"}
    for case in summary["metric_per_case"]:
        told = "2" if "phantom_0003" in case["prediction_file"] else "13"
        for key, metrics in case["metrics"].items():
            assert np.isnan(metrics["n_ref"]) == (key not in told)
            left[key].append(metrics["Dice"])
    means = [np.nanmean(values) for values in left.values()]
    assert [summary["mean"][key]["Dice"] for key in left] == pytest.approx(means)
    mean = summary["foreground_mean"]["Dice"]
    assert mean == pytest.approx(np.mean(means)) and str(mean) in said[-1]
