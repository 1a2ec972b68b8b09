"""Networks of other libraries train, continue and predict like those of nnU-Net."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from semi_nnunet.deploy.export import require_stock_network
from semi_nnunet.deploy.trained import find_model
from semi_nnunet.networks import adapters
from semi_nnunet.networks.adapters import SmpNetwork
from semi_nnunet.planning.plan import apply_architecture
from semi_nnunet.pseudo_labels.predictor import Labeller
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from tests.trainers import WITHOUT_RAMP, run_epochs, same_weights, weights_of

pytest.importorskip("segmentation_models_pytorch", reason="the extra architectures is missing")
pytest.importorskip("monai", reason="the extra architectures is missing")

TRAINED = [
    *((f"smp.{name}", "resnet18", "2d") for name in ("Unet", "UnetPlusPlus", "FPN", "PSPNet")),
    *((f"smp.{name}", "resnet18", "2d") for name in ("Segformer", "DeepLabV3Plus")),
    ("smp.Unet", "tu-hrnet_w18_small", "2d"),
    ("smp.Unet", "tu-mobilenetv3_small_050", "2d"),
    *((f"monai.{name}", "", "3d_fullres") for name in ("SegResNet", "DynUNet", "AttentionUnet")),
    ("primus.S", "", "3d_fullres"),
]


class WithNetwork:
    """The tiny data set, with another network in its plans."""

    def __init__(self, dataset, configuration, name, encoder="", weights=None):
        self.plans, self.dataset_json = dataset.plans, dataset.dataset_json
        self.raw = dataset.raw
        planned = self.plans["configurations"][configuration]
        planned["patch_size"] = [max(edge, 16) for edge in planned["patch_size"]]
        assert apply_architecture(self.plans, [configuration], name, encoder, weights)
        self.plans["configurations"][configuration]["batch_size"] = 2


@pytest.mark.parametrize(("name", "encoder", "configuration"), TRAINED)
def test_it_trains_is_continued_and_predicts(
    name, encoder, configuration, make_trainer, prepared_dataset, tmp_path
):
    dataset = WithNetwork(prepared_dataset("labels", 1), configuration, name, encoder)
    short = {**WITHOUT_RAMP, "epochs": 2, "steps_per_epoch": 1, "deep_supervision": False}

    def make():
        case = {"dataset": dataset, "start": False, **short}
        return make_trainer("SemiMeanTeacherTrainer", configuration, **case)

    trainer, resumed = make(), make()
    run_epochs(trainer, 1)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    for training in (trainer, resumed):
        run_epochs(training, 2)
    assert same_weights(weights_of(trainer.bare_network), weights_of(resumed.bare_network))
    folder = tmp_path / dataset.raw.name / f"SemiMeanTeacherTrainer__plans__{configuration}"
    (folder / "fold_0").mkdir(parents=True)
    trainer.save_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
    write_json(folder / "dataset.json", trainer.dataset_json)
    write_json(folder / "plans.json", trainer.plans_manager.plans)
    label = Labeller([find_model(str(folder))], (), torch.device("cpu"))
    image = next((dataset.raw / "imagesTs").iterdir())
    labels = label([str(image)]).labels
    assert labels.ndim == 3 and labels.max() <= 3


def statistics(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def test_pseudo_labels_leave_no_trace_in_batch_normalisation(make_trainer, prepared_dataset):
    dataset = WithNetwork(prepared_dataset("labels", 1), "2d", "smp.Unet", "resnet18")
    settings = {**WITHOUT_RAMP, "deep_supervision": False}
    trainer = make_trainer("SemiCPSTrainer", dataset=dataset, **settings)
    _, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    original = statistics(trainer.bare_network)
    assert original
    trainer.pseudo_label(trainer.network, unlabelled)
    assert same_weights(original, statistics(trainer.bare_network))
    assert all(m.training for m in trainer.bare_network.modules())
    trainer.predict(unlabelled.x_strong)
    assert not same_weights(original, statistics(trainer.bare_network))


def test_batches_that_cannot_be_normalised_are_explained(make_trainer, prepared_dataset):
    dataset = WithNetwork(prepared_dataset("labels", 1), "2d", "smp.PAN", "resnet18")
    settings = {"labelled_batch_size": 1, "epochs": 1, "deep_supervision": False}
    trainer = make_trainer("SemiBaselineTrainer", "2d", dataset=dataset, start=False, **settings)
    with pytest.raises(UserError, match="at least 2 patches"):
        trainer.run_training()


class WithBatchNorm:
    """The tiny data set, with batch normalisation in nnU-Net's network."""

    def __init__(self, dataset):
        self.plans, self.dataset_json = dataset.plans, dataset.dataset_json
        kwargs = self.plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
        kwargs["norm_op"] = "torch.nn.modules.batchnorm.BatchNorm2d"


def test_sampling_leaves_no_trace_in_batch_normalisation(make_trainer, prepared_dataset):
    dataset = WithBatchNorm(prepared_dataset("labels", 1))
    trainer = make_trainer("SemiDiffusionTrainer", dataset=dataset, **WITHOUT_RAMP)
    _, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    networks = (trainer.bare_network, trainer.companion("diffusion"))
    original = [statistics(network) for network in networks]
    assert any("running_mean" in name for buffers in original for name in buffers)
    trainer.pseudo_probs(unlabelled.x_weak)
    for network, buffers in zip(networks, original, strict=True):
        assert same_weights(buffers, statistics(network))
        assert all(module.training for module in network.modules())
    trainer.train_step(next(trainer.dataloader_train))
    assert not same_weights(original[0], statistics(trainer.bare_network))  # of labelled patches


def test_a_teacher_has_its_students_statistics(make_trainer, prepared_dataset):
    dataset = WithNetwork(prepared_dataset("labels", 1), "2d", "smp.Unet", "resnet18")
    settings = {**WITHOUT_RAMP, "deep_supervision": False}
    trainer = make_trainer("SemiMeanTeacherTrainer", dataset=dataset, **settings)
    trainer.train_step(next(trainer.dataloader_train))
    teacher = trainer.companion("teacher").module
    assert same_weights(statistics(trainer.bare_network), statistics(teacher))


def test_an_encoder_starts_with_the_weights_of_a_file(make_trainer, prepared_dataset, tmp_path):
    torch.manual_seed(5)
    state = copy.deepcopy(SmpNetwork(1, 4, "Unet", "resnet18").encoder.state_dict())
    torch.save(state, tmp_path / "encoder.pth")
    weights = str(tmp_path / "encoder.pth")
    dataset = WithNetwork(prepared_dataset("labels", 1), "2d", "smp.Unet", "resnet18", weights)
    settings = {**WITHOUT_RAMP, "deep_supervision": False}
    trainer = make_trainer("SemiCPSTrainer", dataset=dataset, **settings)
    for network in (trainer.bare_network, trainer.companion("second")):
        assert same_weights(state, network.encoder.state_dict())
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "encoder.pth")
    with pytest.raises(UserError, match="resnet18"):
        make_trainer("SemiBaselineTrainer", dataset=dataset, **settings)
    (tmp_path / "encoder.pth").write_text("no weights")
    with pytest.raises(UserError, match="cannot be read"):
        make_trainer("SemiBaselineTrainer", dataset=dataset, **settings)
    torch.save([torch.zeros(1)], tmp_path / "encoder.pth")
    with pytest.raises(UserError, match="cannot be read"):
        make_trainer("SemiBaselineTrainer", dataset=dataset, **settings)
    (tmp_path / "encoder.pth").unlink()
    with pytest.raises(UserError, match="does not exist"):
        make_trainer("SemiBaselineTrainer", dataset=dataset, **settings)
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    again = make_trainer("SemiCPSTrainer", dataset=dataset, start=False, **settings)
    again.load_checkpoint(str(tmp_path / "checkpoint.pth"))  # needs the file no more


def test_unavailable_imagenet_weights_are_explained(monkeypatch):
    class Offline:
        class encoders:
            @staticmethod
            def get_encoder(*args, **kwargs):
                raise OSError("no route to host")

    network = SmpNetwork(3, 2, "Unet", "resnet18", weights="imagenet")
    monkeypatch.setattr(adapters, "_smp", lambda: Offline)
    with pytest.raises(UserError, match="route to host") as error:
        network.load_pretrained()
    assert (
        "--encoder-weights FILE" in error.value.fix and "--encoder-weights none" in error.value.fix
    )


def test_stock_nnunet_gets_no_network_that_it_cannot_build(prepared_dataset):
    dataset = WithNetwork(prepared_dataset("labels", 1), "2d", "smp.Unet", "resnet18")
    with pytest.raises(UserError, match="SmpNetwork"):
        require_stock_network(dataset.plans, "2d")
    require_stock_network(dataset.plans, "3d_fullres")
