"""The setting continue_from: a new training begins with the networks of an earlier one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from semi_nnunet.networks.frozen import FrozenNetworks
from semi_nnunet.training import initial_weights
from semi_nnunet.training.teacher import ema_decay_at
from semi_nnunet.util.errors import UserError
from tests.trainers import run_epochs, same_weights, save_as_trained, weights_of

NAME = "SemiMeanTeacherTrainer"


def train_earlier(make_trainer, tmp_path: Path, name: str = NAME, fold: int | str = 0) -> Path:
    """Train two epochs; return the model, moved away from the folder of the next training."""
    trainer = make_trainer(name, fold=fold, start=False)
    run_epochs(trainer, 2)
    model = save_as_trained(trainer)
    earlier = tmp_path / "earlier" / model.name
    earlier.parent.mkdir()
    model.rename(earlier)
    return earlier


def test_student_and_teacher_continue_with_a_new_optimizer(make_trainer, tmp_path):
    model = train_earlier(make_trainer, tmp_path)
    stored = torch.load(model / "fold_0/checkpoint_final.pth", weights_only=False)
    trainer = make_trainer(NAME, continue_from=str(model))
    assert same_weights(weights_of(trainer.bare_network), stored["semi"]["student"])
    teacher = weights_of(trainer.companion("teacher").module)
    assert same_weights(teacher, stored["network_weights"])
    assert not same_weights(teacher, weights_of(trainer.bare_network))
    assert not trainer.optimizer.state and trainer.current_epoch == 0
    assert trainer.settings.warm_up_epochs >= 1
    # the teacher stays an average: the first step does not make it a copy of the student
    steps = stored["current_epoch"] * trainer.num_iterations_per_epoch
    assert trainer.initial_weights.steps_before == steps
    trainer.train_step(next(trainer.dataloader_train))
    name, before = next(iter(teacher.items()))
    a = ema_decay_at(steps, trainer.settings.ema_decay)
    expected = a * before + (1 - a) * weights_of(trainer.bare_network)[name]
    assert torch.allclose(
        weights_of(trainer.companion("teacher").module)[name], expected, atol=1e-6
    )


def test_a_resumed_training_remembers_the_steps_before(make_trainer, tmp_path):
    model = train_earlier(make_trainer, tmp_path)
    trainer = make_trainer(NAME, start=False, continue_from=str(model))
    run_epochs(trainer, 1)
    path = str(tmp_path / "checkpoint_latest.pth")
    trainer.save_checkpoint(path)
    resumed = make_trainer(NAME, start=False, continue_from=str(tmp_path / "gone"))
    resumed.load_checkpoint(path)
    assert resumed.initial_weights.steps_before == trainer.initial_weights.steps_before > 0


def test_the_checkpoint_may_have_the_name_of_any_version_of_nnunet(make_trainer, tmp_path):
    trainer, path = make_trainer(NAME), str(tmp_path / "checkpoint_latest.pth")
    trainer.save_checkpoint(path)
    for keyword in ("filename_or_checkpoint", "checkpoint"):  # up to 2.8.1, and after it
        resumed = make_trainer(NAME, start=False)
        resumed.load_checkpoint(**{keyword: path})
        assert same_weights(weights_of(resumed.bare_network), weights_of(trainer.bare_network))
    with pytest.raises(TypeError):
        resumed.load_checkpoint()


def test_another_method_continues_from_the_student_only(make_trainer, tmp_path):
    model = train_earlier(make_trainer, tmp_path, "SemiBaselineTrainer")
    stored = torch.load(model / "fold_0/checkpoint_final.pth", weights_only=False)
    trainer = make_trainer(NAME, continue_from=str(model / "fold_0"))
    assert same_weights(weights_of(trainer.bare_network), stored["network_weights"])
    assert same_weights(weights_of(trainer.companion("teacher").module), stored["network_weights"])


def test_a_model_that_has_seen_validation_cases_is_refused(make_trainer, tmp_path):
    model = train_earlier(make_trainer, tmp_path, "SemiBaselineTrainer", fold=1)
    with pytest.raises(UserError, match="validates on"):
        make_trainer("SemiBaselineTrainer", continue_from=str(model / "fold_1"))
    with pytest.raises(UserError, match="fold 0"):  # of a model, the same fold is continued
        make_trainer("SemiBaselineTrainer", continue_from=str(model))


def test_weights_that_learned_from_validation_cases_are_no_start(make_trainer, tmp_path):
    model = train_earlier(make_trainer, tmp_path, "SemiBaselineTrainer", fold=1)
    with pytest.raises(UserError, match=r"pretrained .* validates on"):
        make_trainer("SemiBaselineTrainer", pretrained=str(model / "fold_1"))
    make_trainer("SemiBaselineTrainer", fold=1, pretrained=str(model / "fold_1"))


def test_images_that_were_filtered_away_later_count_as_seen(make_trainer, tmp_path):
    model = train_earlier(make_trainer, tmp_path)
    path = model / "fold_0/checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    assert content["semi"][initial_weights.IN_FOLD] == content["semi"]["cases"]["unlabelled"]
    annotated_since = make_trainer(NAME).do_split()[1][0]
    content["semi"][initial_weights.IN_FOLD].append(annotated_since)
    torch.save(content, path)
    with pytest.raises(UserError, match=f"validates on: {annotated_since}"):
        make_trainer(NAME, continue_from=str(model))


def test_what_a_training_continued_from_counts_as_seen(make_trainer, tmp_path):
    first = train_earlier(make_trainer, tmp_path, "SemiBaselineTrainer")
    seen = make_trainer("SemiBaselineTrainer", start=False).do_split()[1][0]
    path = first / "fold_0/checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["semi"]["cases"]["labelled"].append("of_another_split")
    torch.save(content, path)
    second = make_trainer("SemiBaselineTrainer", start=False, continue_from=str(first))
    run_epochs(second, 1)
    second.save_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    resumed = make_trainer("SemiBaselineTrainer", start=False)
    resumed.load_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    model = save_as_trained(resumed)
    stored = torch.load(model / "fold_0/checkpoint_final.pth", weights_only=False)
    assert "of_another_split" in initial_weights.list_learned_cases(stored)
    stored["semi"][initial_weights.LEARNED_BEFORE].append(seen)
    torch.save(stored, path)
    with pytest.raises(UserError, match=f"validates on: {seen}"):
        make_trainer("SemiBaselineTrainer", continue_from=str(first))


def test_other_cases_of_a_validated_patient_count_as_seen():
    def check(learned, split):
        initial_weights.require_unseen_patients(
            learned, split, 0, lambda case: case[:2], "weights", "fix"
        )

    check({"p1_a"}, (["p1_a"], ["p2_a"]))
    check({"p1_a"}, (["p1_a"], ["p1_b"]))  # the user's own split has a patient on both sides
    with pytest.raises(UserError, match=r"validates on: p2_a\. "):
        check({"p1_a", "p2_b"}, (["p1_a"], ["p2_a", "p3_a"]))


def test_both_kinds_of_initial_weights_and_other_plans_are_refused(make_trainer, tmp_path):
    model = train_earlier(make_trainer, tmp_path, "SemiBaselineTrainer")
    with pytest.raises(UserError, match="exclude"):
        make_trainer("SemiBaselineTrainer", continue_from=str(model), pretrained=str(model))
    with pytest.raises(UserError, match="plans"):
        make_trainer("SemiBaselineTrainer", "3d_fullres", continue_from=str(model / "fold_0"))


def test_a_new_distillation_keeps_its_new_teacher(tmp_path, monkeypatch):
    earlier = nn.ModuleDict(
        {"models": FrozenNetworks([nn.Linear(1, 1)]), "teacher": nn.Linear(1, 1)}
    )
    content = {"semi": {"companions": earlier.state_dict()}}
    monkeypatch.setattr(initial_weights, "read_of_any_trainer", lambda _: content)
    now = nn.ModuleDict({"models": FrozenNetworks([nn.Linear(1, 1)]), "teacher": nn.Linear(1, 1)})
    before = {name: value.clone() for name, value in weights_of(now).items()}
    weights = initial_weights.InitialWeights(
        tmp_path / "earlier.pth", build=None, continues=True, say=print
    )
    weights.continue_companions(now)
    for name, value in weights_of(now).items():
        expected = before[name] if name.startswith("models") else earlier.state_dict()[name]
        assert torch.equal(value, expected), name
