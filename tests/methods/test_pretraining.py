"""Masked reconstruction, and trainings that start from its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semi_nnunet.networks.pretrained import ADAPTATION_KEY, find_output_layers
from semi_nnunet.training.checkpoints import read_checkpoint
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json
from tests.trainers import TRAINERS, each_of, run_epochs, same_weights, save_as_trained, weights_of

NAME = "SemiPretrainTrainer"
CONFIGURATIONS = [("2d", 1), ("3d_fullres", 3)]


@pytest.fixture
def pretrained(make_trainer):
    """Return ``pretrained(configuration, channels)``, which trains a checkpoint of fold all."""

    def make(configuration: str = "2d", channels: int = 1, **settings) -> Path:
        trainer = make_trainer(NAME, configuration, channels=channels, fold="all", **settings)
        run_epochs(trainer, 2)
        return save_as_trained(trainer) / "fold_all" / "checkpoint_final.pth"

    return make


@pytest.mark.parametrize(("configuration", "channels"), CONFIGURATIONS)
def test_hidden_voxels_of_all_images_are_restored(configuration, channels, make_trainer):
    trainer = make_trainer(NAME, configuration, channels=channels, fold="all")
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    seen = []
    trainer.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    terms = [*trainer.terms(labelled, unlabelled)]
    images, inputs = (labelled.x, unlabelled.x_weak), tuple(seen)
    for image, x, term in zip(images, inputs, terms, strict=True):
        hidden = (x == 0).all(1, keepdim=True) & (image != 0).any(1, keepdim=True)
        assert torch.equal(x * ~hidden, image * ~hidden)
        assert 0.3 < hidden.float().mean() < 0.7
        logits = trainer.network(x)
        assert trainer.predict(x).shape == image.shape and isinstance(logits, torch.Tensor)
        assert term.value.requires_grad and not term.ramped


def test_every_patch_has_the_same_weight(make_trainer):
    settings = {"labelled_batch_size": 2, "unlabelled_batch_size": 6}
    trainer = make_trainer(NAME, fold="all", **settings)
    batch = trainer.on_device(next(trainer.dataloader_train)[0])
    errors = iter(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    trainer.restore_hidden = lambda *_: next(errors)
    values = [term.weight * term.value.item() for term in trainer.terms(*batch)]
    assert sum(values) == (2 * 1 + 6 * 2) / 8


def test_training_increases_the_restored_share(make_trainer):
    trainer = make_trainer(NAME, fold="all", start=False, epochs=20)
    trainer.on_train_start()
    initial = weights_of(trainer.network)
    run_epochs(trainer, 20)
    assert not same_weights(initial, weights_of(trainer.network))
    shares = [row["restored/validation"] for row in trainer.history.rows]
    assert shares[-1] > shares[0]
    trainer.perform_actual_validation()  # there is nothing to segment
    assert not (Path(trainer.output_folder) / "validation").exists()


def test_a_continued_pretraining_is_exact(make_trainer):
    whole = make_trainer(NAME, fold="all", epochs=3)
    run_epochs(whole, 3)
    first = make_trainer(NAME, fold="all", epochs=3)
    run_epochs(first, 1)
    path = Path(first.output_folder) / "checkpoint_latest.pth"
    second = make_trainer(NAME, fold="all", epochs=3, start=False)
    second.load_checkpoint(str(path))
    run_epochs(second, 3)
    assert same_weights(weights_of(whole.network), weights_of(second.network))


@each_of([name for name in TRAINERS if name != "SemiDistillationTrainer"])
@pytest.mark.parametrize(
    ("configuration", "channels"),
    [CONFIGURATIONS[0], pytest.param(*CONFIGURATIONS[1], marks=pytest.mark.slow)],
)
def test_every_network_starts_with_the_weights_except_of_output_layers(
    name, configuration, channels, pretrained, make_trainer
):
    path = pretrained(configuration, channels)
    stored = read_checkpoint(path)["network_weights"]
    trainer = make_trainer(name, configuration, channels=channels, pretrained="pool")
    heads = find_output_layers(trainer.initial_weights.build)
    state = trainer.bare_network.state_dict()
    assert heads and all("seg_layers" in key for key in heads)
    for key, value in state.items():
        assert key in heads or torch.equal(value, stored[key]), key
    record = read_json(Path(trainer.output_folder) / "semi_settings.json")["initial_weights"]
    assert record["path"] == str(path) and len(record["sha256"]) == 64
    assert trainer.settings.warm_up_epochs == 1
    if name == "SemiCPSTrainer":
        second = trainer.companion("second").state_dict()
        encoder = [key for key in state if key.startswith("encoder.")]
        assert all(torch.equal(state[key], second[key]) for key in encoder)
        assert not same_weights(state, second)  # their output layers differ
    run_epochs(trainer, 1)


def test_the_source_of_the_weights_is_kept_on_resume(pretrained, make_trainer):
    path = pretrained()
    trainer = make_trainer("SemiMeanTeacherTrainer", pretrained="pool")
    run_epochs(trainer, 1)
    path.unlink()  # no longer needed
    again = make_trainer("SemiMeanTeacherTrainer", pretrained="pool", start=False)
    again.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert again.initial_weights.record == trainer.initial_weights.record


def test_without_pretraining_the_error_contains_the_command(make_trainer):
    with pytest.raises(UserError, match=r"nnUNetv2_train .* 2d all -tr SemiPretrainTrainer"):
        make_trainer("SemiBaselineTrainer", pretrained="pool")
    with pytest.raises(UserError, match="/nowhere"):
        make_trainer("SemiBaselineTrainer", pretrained="/nowhere")


def test_pool_has_no_effect_on_pretraining_itself(pretrained):
    assert read_checkpoint(pretrained(pretrained="pool"))["semi"]["initial_weights"] == {}


def test_the_checkpoint_names_encoder_and_stem_for_nnunets_fine_tuning(pretrained):
    content = read_checkpoint(pretrained("3d_fullres", 3))
    plan, weights = content[ADAPTATION_KEY], content["network_weights"]
    assert plan["pretrain_num_input_channels"] == 3 and content["citations"] == []
    assert plan["key_to_lpe"] is None  # nnU-Net's fine-tuning reads it
    for key in ("key_to_encoder", "key_to_stem"):
        assert any(name.startswith(f"{plan[key]}.") for name in weights)
    for key in plan["keys_to_in_proj"]:
        assert weights[f"{key}.weight"].shape[1] == 3
    (configuration,) = plan["pretrain_plan"]["configurations"].values()
    assert list(configuration["patch_size"]) == plan["recommended_downstream_patchsize"]
    assert plan["architecture_plans"]["arch_class_name"] == "PlainConvUNet"


def test_the_second_stage_of_a_cascade_is_refused(prepared_cascade, make_trainer):
    with pytest.raises(UserError, match="second stage"):
        make_trainer(NAME, "3d_cascade_fullres", fold="all", dataset=prepared_cascade())
