"""The laws that every trainer obeys: a to j; k, that it helps, is in test_gain.py."""

from __future__ import annotations

import copy
import functools
import itertools
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from semi_nnunet.networks.frozen import FrozenNetworks
from semi_nnunet.training.teacher import EmaTeacher
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.seeds import derived_seed
from tests.trainers import (
    TRAINERS,
    UNLABELLED_TRAINERS,
    WITHOUT_RAMP,
    each_of,
    run_epochs,
    same_weights,
    weights_of,
)

TESTED_ON_ITS_OWN = {"SemiBCPTrainer", "SemiMixMatchTrainer", "SemiDiffusionTrainer"}
every_trainer = each_of(TRAINERS)
every_unlabelled_trainer = each_of(UNLABELLED_TRAINERS)
KINDS, CONFIGURATIONS, CHANNELS = (
    ("labels", "regions", "ignore", "regions_ignore"),
    ("2d", "3d_fullres"),
    (1, 3),
)


def every_cell():
    """Trainers x kinds x configurations x channels; the quick run takes every pair of them once."""
    for cell in itertools.product(TRAINERS, KINDS, CONFIGURATIONS, CHANNELS):
        name, kind, configuration, channels = cell
        row, column = list(TRAINERS).index(name), KINDS.index(kind)
        quick = CONFIGURATIONS[(row + column) % 2], CHANNELS[(row // 2 + column // 2) % 2]
        slow = (configuration, channels) != quick
        yield pytest.param(*cell, marks=pytest.mark.slow if slow else ())


two_extremes = pytest.mark.parametrize(
    ("configuration", "kind", "channels"),
    [("2d", "labels", 1), ("3d_fullres", "regions_ignore", 3)],
)


def compute_unlabelled_terms(trainer, batch):
    """Return the terms of a batch that depend on its unlabelled patches."""
    terms = trainer.terms(*trainer.on_device(batch))
    return [term for term in terms if term.reads_unlabelled]


@pytest.mark.law("a")
@every_unlabelled_trainer
@two_extremes
def test_unlabelled_term_gives_a_student_a_gradient(
    name, configuration, kind, channels, make_trainer
):
    trainer = make_trainer(name, configuration, kind, channels, **WITHOUT_RAMP)
    trainer.train_step(
        next(trainer.dataloader_train)
    )  # a teacher that equals the student agrees with it
    terms = compute_unlabelled_terms(trainer, next(trainer.dataloader_train)[0])
    assert terms
    for term in terms:
        trainer.optimizer.zero_grad(set_to_none=True)
        term.value.backward()
        parameters = (p for network in trainer.trained_networks() for p in network.parameters())
        norms = [p.grad.norm().item() for p in parameters if p.grad is not None]
        assert norms and max(norms) > 0, term.name


@pytest.mark.law("a")
@every_unlabelled_trainer
@two_extremes
def test_unlabelled_term_changes_the_weights(name, configuration, kind, channels, make_trainer):
    weights = []
    for unlabelled_weight in (0.0, 1.0):
        settings = {"unlabelled_weight": unlabelled_weight, **WITHOUT_RAMP}
        trainer = make_trainer(name, configuration, kind, channels, **settings)
        trainer.train_step(next(trainer.dataloader_train))
        weights.append(weights_of(trainer.bare_network))
    assert not same_weights(*weights)


@pytest.mark.law("b")
@every_unlabelled_trainer
@two_extremes
def test_no_gradient_reaches_a_teacher(name, configuration, kind, channels, make_trainer):
    trainer = make_trainer(name, configuration, kind, channels, **WITHOUT_RAMP)
    trainer.train_step(next(trainer.dataloader_train))
    classes = (EmaTeacher, FrozenNetworks)
    teachers = [module for module in trainer._companions.values() if isinstance(module, classes)]
    assert teachers or len(trainer.trained_networks()) > 1
    for parameter in (p for teacher in teachers for p in teacher.parameters()):
        assert parameter.grad is None and not parameter.requires_grad
    optimised = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not optimised & {id(p) for teacher in teachers for p in teacher.parameters()}


@pytest.mark.law("c")
@every_trainer
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_with_zero_weights_steps_equal_plain_nnunet(name, configuration, make_trainer):
    trainer = make_trainer(name, configuration, unlabelled_weight=0.0)
    dataset_plans = copy.deepcopy(trainer.plans_manager.plans)
    plain = nnUNetTrainer(
        {**dataset_plans, "continue_training": False},
        configuration,
        0,
        trainer.dataset_json,
        torch.device("cpu"),
    )
    plain.num_epochs = trainer.num_epochs
    plain.initialize()
    plain.network.load_state_dict(weights_of(trainer.bare_network))
    plain.set_deep_supervision_enabled(True)
    plain.network.train()
    for epoch in range(2):
        for training in (trainer, plain):
            training.current_epoch = epoch
            training.lr_scheduler.step(epoch)
        trainer.step_in_epoch = 0
        for _ in range(2):
            batch = next(trainer.dataloader_train)
            raw = batch[0]["labelled"]
            plain.train_step(
                {"data": raw["data"].clone(), "target": [t.clone() for t in raw["target"]]}
            )
            trainer.train_step(batch)
    assert same_weights(weights_of(trainer.bare_network), weights_of(plain.network))


@pytest.mark.law("d")
@every_trainer
@two_extremes
@pytest.mark.parametrize("from_best", [False, True])
def test_resuming_equals_never_having_stopped(
    name, configuration, kind, channels, from_best, make_trainer, tmp_path
):
    options = {"configuration": configuration, "kind": kind, "channels": channels, "start": False}
    trainer = make_trainer(name, **options)
    run_epochs(trainer, 4)
    weights, companions = weights_of(trainer.bare_network), weights_of(trainer._companions)
    rows, best_epoch = trainer.history.rows, trainer._best_epoch
    shutil.rmtree(tmp_path / "results")
    trainer = make_trainer(name, **options)
    run_epochs(trainer, 2)
    checkpoint = Path(trainer.output_folder) / "checkpoint_latest.pth"
    assert checkpoint.is_file()
    if from_best:  # killed before the first regular checkpoint
        checkpoint.unlink()
        checkpoint = checkpoint.with_name("checkpoint_best.pth")
    resumed = make_trainer(name, **options)
    resumed.load_checkpoint(str(checkpoint))
    run_epochs(resumed, 4)
    assert same_weights(weights, weights_of(resumed.bare_network))
    assert same_weights(companions, weights_of(resumed._companions))
    assert resumed._best_epoch == best_epoch
    for row, resumed_row in zip(rows, resumed.history.rows, strict=True):
        assert {**row, "seconds": 0} == {**resumed_row, "seconds": 0}


@pytest.mark.law("e")
@every_unlabelled_trainer
def test_labels_of_unlabelled_cases_are_never_read(name, make_trainer, prepared_dataset):
    dataset = prepared_dataset("labels", 1)
    trainer = make_trainer(name, dataset=dataset)
    batch = next(trainer.dataloader_train)
    trainer.train_step(batch)
    clean = weights_of(trainer.bare_network)
    folder = trainer.pool.folder
    case = trainer.unlabelled_selection().in_fold[0]
    planted = [
        folder / f"{case}_seg.b2nd",
        dataset.raw / "labelsUn" / f"{case}.nii.gz",
        dataset.preprocessed / "gt_segmentations" / f"{case}.nii.gz",
    ]
    try:
        for path in planted:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"garbage" * 1000)
        trainer = make_trainer(name, dataset=dataset)
        repeated = next(trainer.dataloader_train)
        trainer.train_step(repeated)
    finally:
        for path in planted:
            path.unlink(missing_ok=True)
        (dataset.raw / "labelsUn").rmdir()
    for stream in ("labelled", "unlabelled"):
        assert torch.equal(batch[0][stream]["data"], repeated[0][stream]["data"])
    assert same_weights(clean, weights_of(trainer.bare_network))


@pytest.mark.law("e")
@every_unlabelled_trainer
@pytest.mark.parametrize("fold", [0, 3])
def test_no_validation_case_is_in_the_unlabelled_pool(name, fold, make_trainer):
    trainer = make_trainer(name, fold=fold)
    training, validation = trainer.do_split()
    streams = trainer.dataloader_train.dataset.streams
    pool = set(streams["unlabelled"]._data.identifiers)
    assert pool and not pool & set(validation) and not pool & set(training)
    assert set(streams["labelled"]._data.identifiers) == set(training)
    raw = Path(os.environ["nnUNet_raw"]) / trainer.plans_manager.dataset_name
    test = {path.name.removesuffix("_0000.nii.gz") for path in (raw / "imagesTs").iterdir()}
    assert test
    assert not pool & test


def test_the_quick_cells_have_every_pair():
    quick = [cell.values for cell in every_cell() if not cell.marks]
    factors = list(TRAINERS), KINDS, CONFIGURATIONS, CHANNELS
    for (i, first), (j, second) in itertools.combinations(enumerate(factors), 2):
        pairs = {(cell[i], cell[j]) for cell in quick}
        assert pairs == set(itertools.product(first, second))


@pytest.mark.law("g")
@pytest.mark.parametrize(("name", "kind", "configuration", "channels"), every_cell())
def test_every_kind_of_labels_trains_and_validates(
    name, configuration, kind, channels, make_trainer
):
    trainer = make_trainer(name, configuration, kind, channels, **WITHOUT_RAMP)
    initial = weights_of(trainer.bare_network)
    trainer.train_step(next(trainer.dataloader_train))
    trainer.on_train_epoch_end([{}])
    assert not same_weights(initial, weights_of(trainer.bare_network))
    assert all(np.isfinite(value) for value in trainer.run_log.epoch_values.values())
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
    heads = trainer.label_manager.num_segmentation_heads
    assert len(trainer.logger.get_value("dice_per_class_or_region", step=-1)) == heads - (
        kind in ("labels", "ignore")
    )


@pytest.mark.law("g")
@every_trainer
def test_deep_supervision_off(name, make_trainer):
    trainer = make_trainer(name, deep_supervision=False, **WITHOUT_RAMP)
    trainer.train_step(next(trainer.dataloader_train))
    trainer.on_train_epoch_end([{}])
    assert all(np.isfinite(value) for value in trainer.run_log.epoch_values.values())


@pytest.mark.law("g")
@every_trainer
def test_residual_encoder(name, make_trainer, prepared_dataset):
    class Residual:
        """The tiny data set with nnU-Net's residual encoder network in its plans."""

        def __init__(self):
            self.plans, self.dataset_json = (
                prepared_dataset("labels", 1).plans,
                prepared_dataset("labels", 1).dataset_json,
            )
            architecture = self.plans["configurations"]["2d"]["architecture"]
            architecture["network_class_name"] = (
                "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
            )
            kwargs = architecture["arch_kwargs"]
            kwargs["n_blocks_per_stage"] = [1] * len(kwargs.pop("n_conv_per_stage"))

    trainer = make_trainer(name, dataset=Residual(), **WITHOUT_RAMP)
    assert type(trainer.bare_network).__name__ == "ResidualEncoderUNet"
    trainer.train_step(next(trainer.dataloader_train))
    trainer.on_train_epoch_end([{}])
    assert all(np.isfinite(value) for value in trainer.run_log.epoch_values.values())


@pytest.mark.law("h")
@every_trainer
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_terms_and_weights_are_float32_in_bfloat16_trainings(name, configuration, make_trainer):
    terms = {}
    for precision in ("none", "bfloat16"):
        trainer = make_trainer(name, configuration, mixed_precision=precision, **WITHOUT_RAMP)
        labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
        remaining = iter(trainer.terms(labelled, unlabelled))
        terms[precision] = list(
            iter(
                functools.partial(trainer.optimizer_step.next_term, remaining, trainer.device), None
            )
        )
    values = [term.value for term in terms["bfloat16"]]
    assert all(torch.isfinite(value) and value.dtype == torch.float32 for value in values)
    sum(values).backward()
    parameters = [p for network in trainer.trained_networks() for p in network.parameters()]
    assert all(p.dtype == torch.float32 for p in parameters)
    full, half = (values[0].value.item() for values in terms.values())  # the same labelled patches
    if name != "SemiMixMatchTrainer":  # its first term is of mixed patches
        assert 0 < abs(full - half) < 0.02 * full


@pytest.mark.law("i")
@every_trainer
@two_extremes
def test_i_a_nan_term_stops_training_by_name_and_the_checkpoint_stays(
    name, configuration, kind, channels, make_trainer
):
    trainer = make_trainer(name, configuration, kind, channels, **WITHOUT_RAMP)
    good = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(good))
    content = good.read_bytes()
    initial = weights_of(trainer.bare_network)
    batch = next(trainer.dataloader_train)
    stream = "unlabelled" if trainer.uses_unlabelled else "labelled"
    batch[0][stream]["data"][0, 0] = float("nan")
    # as train_step does: whether a box carries the NaN into a labelled patch is random
    torch.manual_seed(derived_seed(trainer.settings.seed, "step", trainer.step, 0))
    terms = list(trainer.terms(*trainer.on_device(batch[0])))
    term = next(term.name for term in terms if not torch.isfinite(term.value))
    with pytest.raises(UserError, match=re.escape(f"'{term}' became nan")) as error:
        trainer.train_step(batch)
    assert all(case in error.value.what for case in batch[0][stream]["keys"])
    assert good.read_bytes() == content
    assert same_weights(initial, weights_of(trainer.bare_network))


class Pointwise(nn.Module):
    """A network that sees one voxel at a time, so that it commutes with cutting and pasting."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 1)
        self.encoder = nn.Sequential()

    def forward(self, x):
        return 1e4 * self.conv(x)


@pytest.mark.law("j")
@each_of(sorted(set(UNLABELLED_TRAINERS) - TESTED_ON_ITS_OWN))
def test_teacher_and_student_see_the_same_voxels(name, make_trainer):
    """Without appearance changes a pointwise student agrees with its teacher, CutMix or not.

    It is sure of every voxel, so that also Dice + cross-entropy reach their minimum, -1.
    """
    fields = TRAINERS[name].settings_class.__dataclass_fields__
    quiet = {key: 0.0 for key in ("teacher_noise", "dropout") if key in fields}
    trainer = make_trainer(name, appearance_strength=0.0, **quiet, **WITHOUT_RAMP)
    network = trainer.network = Pointwise()
    vars(trainer).pop("disturbed_student", None)  # built from the replaced network
    stand_ins = {
        "teacher": EmaTeacher(network),
        "second": network,
        "models": FrozenNetworks([copy.deepcopy(network)]),
    }
    for key in stand_ins.keys() & set(trainer._companions):
        trainer._companions[key] = stand_ins[key]
    torch.manual_seed(0)
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    trainer.supervised = lambda *args: None
    terms = [term for term in trainer.terms(labelled, unlabelled) if term is not None]
    limited = [term for term in terms if term.limited]  # others are on labelled patches
    assert limited
    for term in limited:
        assert min(abs(term.value.item() - minimum) for minimum in (0.0, -1.0)) < 1e-3, term.name


@pytest.mark.law("j")
@every_unlabelled_trainer
def test_the_strong_view_changes_appearance_not_geometry(name, make_trainer):
    trainer = make_trainer(name, "3d_fullres", appearance_probability=1.0)
    _, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    assert not torch.equal(unlabelled.x_weak, unlabelled.x_strong)
    for weak, strong in zip(unlabelled.x_weak[:, 0], unlabelled.x_strong[:, 0], strict=True):
        aligned = np.corrcoef(weak.flatten(), strong.flatten())[0, 1]
        shifted = np.corrcoef(weak.flatten(), strong.roll(3, -1).flatten())[0, 1]
        assert aligned > 0.6 and aligned > shifted
