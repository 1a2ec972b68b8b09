"""Soft labels of frozen models."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from semi_nnunet.core.consistency import soft_label_divergence
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from tests.methods.by_hand import mixed_by_hand
from tests.trainers import DEFAULT_MODEL, SHORT, WITHOUT_RAMP, same_weights, weights_of

NAME = "SemiDistillationTrainer"


def divergence_by_hand(logits, target, mask, exclusive):
    total, voxels = 0.0, 0
    for i, _, y, x in mask.nonzero().tolist():
        z, q = logits[i, :, y, x].double().tolist(), target[i, :, y, x].double().tolist()
        if exclusive:
            norm = sum(math.exp(v) for v in z)
            pairs = [(b, math.exp(a) / norm) for a, b in zip(z, q, strict=True)]
            share = 1.0
        else:
            p = [1 / (1 + math.exp(-v)) for v in z]
            pairs = [*zip(q, p, strict=True), *((1 - b, 1 - a) for a, b in zip(p, q, strict=True))]
            share = 1 / len(z)
        total += share * sum(b * math.log(b / a) for b, a in pairs if b > 0)
        voxels += 1
    return total / voxels


@pytest.mark.parametrize("exclusive", [True, False])
def test_divergence_equals_a_voxelwise_loop(exclusive):
    torch.manual_seed(0)
    logits, raw = torch.randn(2, 2, 3, 4, 5)
    target = raw.softmax(1) if exclusive else raw.sigmoid()
    target[:, :, 0, 0] = torch.tensor([1.0, 0.0, 0.0])[None]  # hard: 0 log 0 is 0
    mask = torch.rand(2, 1, 4, 5) > 0.4
    value = soft_label_divergence(logits, target, mask, exclusive)
    expected = divergence_by_hand(logits, target, mask, exclusive)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    agreed = target.clamp_min(1e-30).log() if exclusive else torch.logit(target, eps=1e-7)
    assert soft_label_divergence(agreed, target, mask, exclusive) < 1e-5


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_the_strong_view_learns_the_mean_probabilities_of_the_models(kind, make_trainer):
    first = make_trainer(NAME, kind=kind, temperature=2.0, soft_label_weight=3.0, **WITHOUT_RAMP)
    folder = Path(first.default_model())
    other = copy.deepcopy(first.companion("models")[0])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    first.companion("models").append(other)
    labelled, unlabelled = first.on_device(next(first.dataloader_train)[0])
    mixes, draw = [], first.cutmix
    first.cutmix = lambda like: (mixes.append(draw(like)), mixes[-1])[1]
    first.network.eval()
    _, term = first.terms(labelled, unlabelled)
    with torch.no_grad():
        model_logits = [model(unlabelled.x_weak) / 2 for model in first.companion("models")]
        probs = [z.softmax(1) if first.exclusive else z.sigmoid() for z in model_logits]
        box, partner = mixes[0].box, mixes[0].partner
        target = mixed_by_hand((probs[0] + probs[1]) / 2, box, partner)
        mask = mixed_by_hand(unlabelled.mask, box, partner)
        logits = first.predict(mixed_by_hand(unlabelled.x_strong, box, partner)) / 2
    expected = 4 * divergence_by_hand(logits, target, mask, first.exclusive)
    assert term.value.item() == pytest.approx(expected, abs=1e-5)
    assert term.weight == 3.0 and term.ramped
    assert folder.parent.name.startswith(f"{DEFAULT_MODEL}__") and folder.name == "fold_0"
    assert first.deploys_student


def test_models_never_change(make_trainer):
    trainer = make_trainer(NAME, **WITHOUT_RAMP)
    original = weights_of(trainer.companion("models"))
    trainer.train_step(next(trainer.dataloader_train))
    assert same_weights(original, weights_of(trainer.companion("models")))
    assert not trainer.companion("models").training


def test_a_model_with_more_classes_teaches_ours_by_name(make_trainer):
    """As a model of another data set does, whose classes have other numbers."""
    trainer = make_trainer(NAME, **WITHOUT_RAMP)
    model = Path(trainer.default_model()).parent
    description = read_json(model / "dataset.json")
    ours = trainer.dataset_json["labels"]
    swapped = {**ours, "large": ours["small"], "small": ours["large"]}
    fewer = {name: value for name, value in ours.items() if value < 3}
    _, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    x = unlabelled.x_weak
    expected = trainer.soft_labels(x)
    write_json(model / "dataset.json", {**description, "labels": swapped, "file_ending": ".mha"})
    renamed = make_trainer(NAME, models=[str(model)], **WITHOUT_RAMP).soft_labels(x)
    assert (ours["large"], ours["pair"], ours["small"]) == (1, 2, 3)
    assert torch.allclose(renamed, expected[:, [0, 3, 2, 1]], atol=1e-6)
    write_json(model / "dataset.json", description)
    dataset = SimpleNamespace(
        plans=copy.deepcopy(trainer.plans_manager.plans),
        dataset_json={**trainer.dataset_json, "labels": fewer},
    )
    teacher = make_trainer(NAME, dataset=dataset, models=[str(model)], start=False)
    teacher.initialize()
    probs = teacher.soft_labels(x)
    assert probs.shape[1] == 3
    assert torch.allclose(probs[:, 1:], expected[:, 1:3], atol=1e-6)
    assert torch.allclose(probs[:, 0], expected[:, 0] + expected[:, 3], atol=1e-6)


def test_unsuitable_models_are_refused(make_trainer, tmp_path):
    trainer = make_trainer(NAME, **SHORT)
    model = Path(trainer.default_model()).parent
    with pytest.raises(UserError, match="no trained model"):
        make_trainer(NAME, models=[str(tmp_path / "nowhere")])
    plans = read_json(model / "plans.json")
    finer = copy.deepcopy(plans)
    finer["configurations"]["2d"]["spacing"] = [0.5, 0.5]
    write_json(model / "plans.json", finer)
    with pytest.raises(UserError, match="spacing"):
        make_trainer(NAME, models=[str(model)])
    write_json(model / "plans.json", plans)
    description = read_json(model / "dataset.json")
    write_json(model / "dataset.json", {**description, "labels": {"background": 0, "a": 1}})
    with pytest.raises(UserError, match="labels"):
        make_trainer(NAME, models=[str(model)])
