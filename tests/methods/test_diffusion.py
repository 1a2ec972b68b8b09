"""A&D: the terms of each decoder, and the paper's settings."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.methods.by_hand import dice_ce_by_hand
from tests.trainers import WITHOUT_RAMP, partially_annotated, weights_of

NAME = "SemiDiffusionTrainer"


def next_batch(trainer):
    return trainer.on_device(next(trainer.dataloader_train)[0])


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_each_decoder_learns_from_its_own_term(kind, make_trainer):
    trainer = make_trainer(NAME, kind=kind, **WITHOUT_RAMP)
    branches, student = trainer.companion("diffusion").branches, trainer.network
    learns = {}
    for term in trainer.terms(*next_batch(trainer)):
        trainer.optimizer.zero_grad(set_to_none=True)
        term.value.backward()
        decoders = {"theta": student.decoder, "psi": branches.psi, "xi": branches.xi}
        learns[term.name] = {
            name
            for name, decoder in decoders.items()
            if decoder.seg_layers[-1].weight.grad is not None
        }
        assert student.encoder.stages[-1][0].convs[0].conv.weight.grad is not None  # shared
    assert learns == {
        "supervised": {"theta"},
        "denoising": {"xi"},
        "difficulty": {"psi"},
        "pseudo_label": {"theta"},
    }


@pytest.mark.parametrize("kind", ["labels", "regions"])
@pytest.mark.parametrize("diffusion_labels", [True, False])
def test_theta_learns_the_sum_of_both_branches(kind, diffusion_labels, make_trainer):
    trainer = make_trainer(
        NAME, kind=kind, diffusion_labels=diffusion_labels, cutmix_probability=0.0, **WITHOUT_RAMP
    )
    trainer.train_step(next(trainer.dataloader_train))
    labelled, unlabelled = next_batch(trainer)
    trainer.step_in_epoch = 1
    diffusion = trainer.companion("diffusion")
    xi = diffusion.xi_probs(trainer.encoder, unlabelled.x_weak)
    diffusion.xi_probs = lambda encoder, x: xi
    *_, pseudo_label = trainer.terms(labelled, unlabelled)
    psi = trainer.probs(
        trainer.companion("diffusion").branches.predict_psi(
            trainer.network.encoder, unlabelled.x_weak
        )
    ).detach()
    total = psi + xi if diffusion_labels else 2 * psi
    if kind == "labels":
        target = torch.zeros_like(psi).scatter_(1, total.argmax(1, keepdim=True), 1)
    else:
        target = (total > 1).float()
    with torch.no_grad():
        logits = trainer.network(unlabelled.x_strong)[0]
    expected = dice_ce_by_hand(logits, target, unlabelled.mask, trainer.exclusive)
    assert pseudo_label.value.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_difficult_classes_have_larger_weights_in_both_terms_of_the_loss(kind, make_trainer):
    """CE(w) - mean_k(w_k Dice_k) of the classes with a Dice; w is not normalised."""
    trainer = make_trainer(NAME, kind=kind)
    torch.manual_seed(0)
    labelled, _ = next_batch(trainer)
    target, mask = trainer.annotation(labelled.target)
    logits = torch.randn(target.shape, dtype=torch.float64)
    w = torch.linspace(0.5, 3.0, target.shape[1], dtype=torch.float64)
    if kind == "labels":
        voxels = F.cross_entropy(logits, target.argmax(1), weight=w)
        probs, first = torch.softmax(logits, 1), 1
    else:
        losses = F.binary_cross_entropy_with_logits(logits, target.double(), reduction="none")
        voxels = torch.stack([w[k] * losses[:, k].mean() for k in range(len(w))]).mean()
        probs, first = torch.sigmoid(logits), 0
    dice = [
        w[k]
        * (2 * (probs[:, k] * target[:, k]).sum() + 1e-5)
        / (probs[:, k].sum() + target[:, k].sum() + 1e-5)
        for k in range(first, len(w))
    ]
    expected = voxels - torch.stack(dice).mean()
    loss = trainer.pseudo_label_loss(logits, target, mask, w.float())
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


def test_theta_does_not_wait_if_it_learns_only_from_pseudo_labels(make_trainer):
    trainer = make_trainer(NAME, theta_on_labels=False)
    assert trainer.settings.unlabelled_start_steps == 0
    assert trainer.unlabelled_weight.reliability == 1.0
    assert make_trainer(NAME).settings.unlabelled_start_steps > 0


def test_the_terms_of_the_branches_do_not_depend_on_the_unlabelled_weight(make_trainer):
    for weight, branch_weight in ((0.1, 1.0), (0.0, 0.0)):
        trainer = make_trainer(NAME, **WITHOUT_RAMP, unlabelled_weight=weight)
        batches = trainer.on_device(next(trainer.dataloader_train)[0])
        terms = {term.name: term for term in trainer.terms(*batches)}
        assert terms["denoising"].weight == terms["difficulty"].weight == branch_weight
        assert not terms["denoising"].ramped and terms["pseudo_label"].ramped


def test_the_defaults_need_two_passes_more_than_training(make_trainer):
    trainer = make_trainer(NAME, **WITHOUT_RAMP)
    trainer.train_step(next(trainer.dataloader_train))  # the first of the epoch also logs
    decoded = []
    branches = trainer.companion("diffusion").branches
    for name, decoder in (("xi", branches.xi), ("psi", branches.psi)):
        decoder.seg_layers[-1].register_forward_hook(
            lambda module, i, o, name=name: decoded.append((name, torch.is_grad_enabled()))
        )
    trainer.train_step(next(trainer.dataloader_train))
    assert sorted(decoded) == [("psi", False), ("psi", True), ("xi", False), ("xi", True)]


def test_sampling_steps_and_interval(make_trainer):
    trainer = make_trainer(NAME, sampling_steps=4, sampling_interval_steps=3, **WITHOUT_RAMP)
    _, unlabelled = next_batch(trainer)
    passes = []
    branches = trainer.companion("diffusion").branches
    denoise = branches.denoise
    branches.denoise = lambda *args: (passes.append(args[3][0].item()), denoise(*args))[1]
    for step in range(6):
        trainer.current_epoch, trainer.step_in_epoch = divmod(step, 2)
        trainer.pseudo_probs(unlabelled.x_weak)
    assert passes == [999, 666, 333, 0] * 2


def test_the_papers_settings(make_trainer):
    trainer = make_trainer(NAME, fidelity="paper", ramp_up="constant")
    settings = trainer.settings
    assert settings.unlabelled_start_steps == 0 and settings.appearance_strength == 0.0
    assert settings.ramp_up_steps == settings.total_steps
    assert (settings.label_scale, settings.sampling_steps, settings.time_power) == (1.0, 10, 1.0)
    assert settings.clamped_logits and settings.reparameterised and not settings.theta_on_labels
    assert settings.averaging == "both" and settings.pseudo_label_weight == 10.0
    assert settings.cutmix_probability == 0.0 and not settings.normalised_difficulty
    assert not settings.begins_with_image and settings.unlabelled_rotation_and_scaling
    assert (settings.momentum, settings.gradient_clip) == (0.9, 0.0)
    names = [term.name for term in trainer.terms(*next_batch(trainer))]
    assert names == ["denoising", "difficulty", "pseudo_label"]
    logits = torch.tensor([[-3.0, 0.5, 2.0]]).view(1, 3, 1, 1)
    assert trainer.companion("diffusion").from_logits(logits).flatten().tolist() == [-1.0, 0.5, 1.0]
    trainer.train_step(next(trainer.dataloader_train))
    assert all(torch.isfinite(v).all() for v in weights_of(trainer.network).values())


def test_improved_defaults_of_shared_settings_are_those_of_every_trainer(make_trainer):
    ours, common = make_trainer(NAME).settings, make_trainer("SemiFixMatchTrainer").settings
    for name in ("unlabelled_start_steps", "ramp_up_steps", "appearance_strength"):
        assert getattr(ours, name) == getattr(common, name)


def test_single_settings_of_the_paper_can_be_changed(make_trainer):
    trainer = make_trainer(NAME, fidelity="paper", sampling_steps=2)
    assert trainer.settings.sampling_steps == 2 and trainer.settings.clamped_logits


def test_signal_of_labels_and_of_predictions_is_the_same(make_trainer):
    diffusion = make_trainer(NAME).companion("diffusion")
    onehot = torch.eye(4)[None, :, :, None]
    assert diffusion.to_signal(onehot).unique().tolist() == pytest.approx([-0.2, 0.2])
    torch.testing.assert_close(diffusion.from_logits(100 * onehot), diffusion.to_signal(onehot))


def test_ignored_voxels_have_no_class_in_the_noised_labels(make_trainer):
    trainer = make_trainer(NAME, kind="ignore", **WITHOUT_RAMP)
    diffusion, seen = trainer.companion("diffusion"), []
    q_sample = diffusion.schedule.q_sample
    diffusion.schedule.q_sample = lambda x_0, t, noise: (seen.append(x_0), q_sample(x_0, t, noise))[
        1
    ]
    labelled, unlabelled = next_batch(trainer)
    _, mask = trainer.annotation(labelled.target)
    list(trainer.terms(labelled, unlabelled))
    assert not mask.all() and not (seen[0] * ~mask).any()
    assert (seen[0].abs().amax(1, keepdim=True)[mask] > 0.1).all()


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_both_branches_learn_only_annotated_classes(kind, make_trainer, prepared_dataset):
    dataset = partially_annotated(prepared_dataset(kind, 1), kind)
    trainer = make_trainer(NAME, kind=kind, dataset=dataset, **WITHOUT_RAMP)
    labelled, unlabelled = next_batch(trainer)
    assert not labelled.annotated.all()
    target, mask = trainer.annotation(labelled.target)
    diffusion, seen, dice = trainer.companion("diffusion"), [], []
    q_sample, weigh = diffusion.schedule.q_sample, trainer.companion("difficulty").forward
    diffusion.schedule.q_sample = lambda x_0, *rest: (seen.append(x_0), q_sample(x_0, *rest))[1]
    trainer.companion("difficulty").forward = lambda d: (dice.append(d), weigh(d))[1]
    logits = []
    for owner, name in ((diffusion, "denoise_labels"), (diffusion.branches, "predict_psi")):
        predict = getattr(owner, name)
        setattr(owner, name, lambda *a, f=predict: (logits.append(f(*a)), logits[-1])[1])
    terms = {term.name: term for term in trainer.terms(labelled, unlabelled)}
    xi, psi = logits[:2]
    expected = dice_ce_by_hand(xi, target, mask, trainer.exclusive, labelled.annotated)
    assert terms["denoising"].value.item() == pytest.approx(expected, abs=1e-5)
    hidden = ~labelled.annotated
    for name, output in (("denoising", xi), ("difficulty", psi)):
        (gradient,) = torch.autograd.grad(terms[name].value, output, retain_graph=True)
        if trainer.exclusive:  # background and classes that are not annotated have one gradient
            slope = gradient / output.softmax(1)
            apart = (slope - slope[:, :1]).abs().amax((2, 3))
            assert apart[hidden].max() < 1e-3 * apart[~hidden].max()
        else:
            assert not gradient[hidden].any()
    unknown = hidden[:, :, None, None].expand_as(target)
    if trainer.exclusive:
        partial = hidden.any(1)
        assert not seen[0][partial][target[partial][:, :1].expand_as(seen[0][partial]) > 0].any()
    else:
        assert not seen[0][unknown].any()
    never = hidden.all(0)
    assert torch.equal(dice[0].isnan() & never, never)


@pytest.mark.parametrize("averaging", ["both", "psi", "none"])
def test_theta_is_averaged_with_the_other_decoders(averaging, make_trainer):
    trainer = make_trainer(NAME, averaging=averaging, averaging_decay=0.9)
    branches, theta = trainer.companion("diffusion").branches, trainer.network.decoder
    old = weights_of(theta)
    trainer.after_optimizer_step(0)
    new = weights_of(theta)
    for name in ("stages.0.convs.0.conv.weight", "seg_layers.1.bias", "transpconvs.0.weight"):
        xi, psi = (weights_of(decoder)[name] for decoder in (branches.xi, branches.psi))
        other = {"both": (xi + psi) / 2, "psi": psi, "none": old[name]}[averaging]
        torch.testing.assert_close(new[name], 0.9 * old[name] + 0.1 * other)
    assert "seg_layers.0.weight" in old  # whose counterparts in xi and psi are never trained
    for name in old:
        if name.startswith(("encoder", "seg_layers.0")):
            assert torch.equal(old[name], new[name])


def test_the_dice_of_both_branches_is_logged_and_compared(make_trainer):
    trainer = make_trainer(NAME, **WITHOUT_RAMP)
    messages = []
    trainer.print_to_log_file = lambda *args, **kwargs: messages.append(" ".join(map(str, args)))
    for _ in range(2):
        trainer.train_step(next(trainer.dataloader_train))
    trainer.on_train_epoch_end([{}])
    values = trainer.run_log.epoch_values
    assert 0 <= values["dice/xi"] <= 1 and 0 <= values["dice/psi"] <= 1
    trainer.records.add("dice/xi", 0.1)
    trainer.records.add("dice/psi", 0.8)
    trainer.on_train_epoch_end([{}])
    assert any("WARNING" in message and "diffusion" in message for message in messages)


def test_the_deployed_network_is_the_planned_one_with_its_usual_keys(make_trainer):
    trainer, plain = make_trainer(NAME), make_trainer("SemiBaselineTrainer")
    content = trainer.checkpoint_content(1)
    assert content["network_weights"].keys() == plain.bare_network.state_dict().keys()
    assert trainer.prediction_network() is trainer.bare_network
