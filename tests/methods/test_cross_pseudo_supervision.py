"""CPS: two networks that learn from each other."""

from __future__ import annotations

import pytest
import torch

from tests.methods.by_hand import dice_ce_by_hand, mixed_by_hand
from tests.trainers import WITHOUT_RAMP, run_epochs, same_weights, weights_of

NAME = "SemiCPSTrainer"


def test_two_networks_of_one_plan_start_differently_and_both_train(make_trainer):
    trainer = make_trainer(NAME, **WITHOUT_RAMP)
    first, second = trainer.bare_network, trainer.companion("second")
    assert {k: v.shape for k, v in first.state_dict().items()} == {
        k: v.shape for k, v in second.state_dict().items()
    }
    initial = weights_of(first), weights_of(second)
    assert not same_weights(*initial)
    again = make_trainer(NAME, **WITHOUT_RAMP)
    assert same_weights(initial[1], weights_of(again.companion("second")))
    optimised = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for network in (first, second) for p in network.parameters()}
    trainer.train_step(next(trainer.dataloader_train))
    assert not same_weights(initial[0], weights_of(first))
    assert not same_weights(initial[1], weights_of(second))


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_each_network_learns_the_others_argmax(kind, make_trainer):
    trainer = make_trainer(NAME, kind=kind, **WITHOUT_RAMP)
    trainer.train_step(next(trainer.dataloader_train))
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    first, second = trainer.network, trainer.companion("second")
    mixes, draw = [], trainer.cutmix
    trainer.cutmix = lambda like: (mixes.append(draw(like)), mixes[-1])[1]
    terms = {term.name: term for term in trainer.terms(labelled, unlabelled)}
    assert list(terms) == [
        "supervised",
        "supervised_second",
        "first_from_second",
        "second_from_first",
    ]
    box, partner = mixes[0].box, mixes[0].partner
    x = mixed_by_hand(unlabelled.x_strong, box, partner)
    mask = mixed_by_hand(unlabelled.mask, box, partner)
    for name, pupil, teacher in (
        ("first_from_second", first, second),
        ("second_from_first", second, first),
    ):
        with torch.no_grad():
            logits, taught = teacher(unlabelled.x_weak)[0], pupil(x)[0]
        if kind == "labels":
            classes = logits.argmax(1, keepdim=True)
            target = torch.zeros_like(logits).scatter_(1, classes, 1)
        else:
            target = (logits > 0).float()
        expected = dice_ce_by_hand(
            taught, mixed_by_hand(target, box, partner), mask, trainer.exclusive
        )
        assert terms[name].value.item() == pytest.approx(expected, abs=1e-5)
        assert terms[name].weight == 0.5 and terms[name].ramped
    assert terms["supervised_second"].ramped is False


def test_pseudo_labels_receive_no_gradient(make_trainer):
    trainer = make_trainer(NAME, **WITHOUT_RAMP)
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    for term in trainer.terms(labelled, unlabelled):
        trainer.optimizer.zero_grad(set_to_none=True)
        term.value.backward()
        of_second = any(p.grad is not None for p in trainer.companion("second").parameters())
        of_first = any(p.grad is not None for p in trainer.network.parameters())
        assert (of_first, of_second) == (
            term.name in ("supervised", "first_from_second"),
            term.name in ("supervised_second", "second_from_first"),
        )


def test_the_setting_selects_the_deployed_network(make_trainer):
    trainer = make_trainer(NAME, deploy="second")
    assert trainer.prediction_network() is trainer.companion("second")
    trainer = make_trainer(NAME, deploy="first")
    assert trainer.prediction_network() is trainer.bare_network
    trainer = make_trainer(NAME)
    rows = [{"epoch": e, "dice/first": 0.9, "dice/second": 0.1} for e in range(30)]
    rows += [{"epoch": 30 + e, "dice/first": 0.5, "dice/second": 0.6} for e in range(10)]
    trainer.history.rows = rows
    assert trainer.prediction_network() is trainer.companion("second")
    trainer.history.rows = rows[:30]
    assert trainer.prediction_network() is trainer.bare_network
    trainer.history.rows = [{**row, "dice/second": 0.95} for row in rows[20:30]]
    trainer.history.rows[3]["dice/first"] = float("nan")  # no class was present
    assert trainer.prediction_network() is trainer.companion("second")


def test_both_networks_are_validated_and_the_better_one_is_saved(make_trainer):
    trainer = make_trainer(NAME, start=False)
    run_epochs(trainer, 2)
    row = trainer.history.rows[-1]
    assert {"dice/first", "dice/second", "dice/deployed"} <= set(row)
    totals = {n: sum(r[f"dice/{n}"] for r in trainer.history.rows) for n in ("first", "second")}
    second_is_better = totals["second"] > totals["first"]
    better = trainer.companion("second") if second_is_better else trainer.bare_network
    content = trainer.checkpoint_content(2)
    assert same_weights(content["network_weights"], weights_of(better))


def test_the_average_is_validated_and_its_better_member_saved_for_stock_prediction(make_trainer):
    trainer = make_trainer(NAME, start=False, deploy="average")
    run_epochs(trainer, 1)
    networks = {"first": trainer.bare_network, "second": trainer.companion("second")}
    dice = {name: trainer.history.rows[-1][f"dice/{name}"] for name in networks}
    better, other = sorted(networks, key=lambda name: -dice[name])
    content = trainer.checkpoint_content(1)
    assert same_weights(content["network_weights"], weights_of(networks[better]))
    (saved,) = content["semi"]["averaged_with"]
    assert same_weights(saved, weights_of(networks[other]))
    x = torch.randn(2, 1, 32, 32)
    with trainer.as_network(trainer.prediction_network()), torch.no_grad():
        outputs = trainer.network(x)
        assert len(outputs) > 1
        for level, a, b in zip(outputs, *(net(x) for net in networks.values()), strict=True):
            assert torch.allclose(level, (a + b) / 2, atol=1e-6)
        trainer.set_deep_supervision_enabled(False)
        assert trainer.network(x).shape[2:] == x.shape[2:]
    trainer.set_deep_supervision_enabled(True)


def test_images_are_filtered_by_both_networks_if_the_average_is_deployed(make_trainer):
    trainer = make_trainer(NAME, deploy="average", filter_epochs=[1])
    compared = trainer.pool.filter.compared(epoch=1).values()
    assert {id(net) for net in compared} == {
        id(trainer.bare_network),
        id(trainer.companion("second")),
    }
