"""Companions are compiled if the student is, and train to the same weights."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from semi_nnunet.core.stochastic import add_feature_dropout
from semi_nnunet.training.companions import CompiledNetworks
from tests.networks.unets import unet
from tests.trainers import UNLABELLED_TRAINERS, weights_of

STEPS = 3


class Halves(nn.Module):
    """A network with an encoder, as nnU-Net's have."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.last = nn.Sequential(nn.Conv2d(1, 4, 1)), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.encoder(x)[-1:])


def test_networks_stay_as_they_are_if_the_student_is_not_compiled() -> None:
    student, other = Halves(), Halves()
    compiled = CompiledNetworks(student)
    assert compiled(student) is student and compiled(other) is other


def test_each_network_is_compiled_once_and_keeps_the_names_of_its_weights() -> None:
    student, other = Halves(), Halves()
    wrapped = torch.compile(student, backend="eager")
    compiled = CompiledNetworks(wrapped)
    assert compiled(student) is wrapped and compiled(wrapped) is wrapped
    assert compiled(other) is compiled(other) and compiled(other) is not other
    assert compiled(compiled(other)) is compiled(other)
    assert not any("_orig_mod" in name for name in other.state_dict())


def test_networks_with_and_without_feature_dropout_are_compiled_separately(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    student = unet("plain", 2, 1)
    compiled = CompiledNetworks(torch.compile(student))
    dropout_network = add_feature_dropout(student, 0.5, every_level=True)
    runs, x = compiled(dropout_network), torch.randn(2, 1, 8, 8)
    assert runs is not dropout_network and runs is compiled(dropout_network)
    for _ in range(2):  # neither runs the graph of the other
        torch.manual_seed(3)
        expected = dropout_network(x)
        torch.manual_seed(3)
        torch.testing.assert_close(runs(x), expected)
        torch.testing.assert_close(compiled(student)(x), student(x))
        assert not torch.allclose(expected[0], student(x)[0])


def test_a_function_of_networks_is_compiled_once() -> None:
    student = Halves()

    def path(network: Halves, x: torch.Tensor) -> torch.Tensor:
        return network.last(network.encoder(x))

    assert CompiledNetworks(student).path(path) is path
    compiled = CompiledNetworks(torch.compile(student, backend="eager"))
    runs = compiled.path(path)
    assert runs is not path and runs is compiled.path(path)


def test_the_decoders_of_diffusion_are_compiled(
    make_trainer: Any, monkeypatch: pytest.MonkeyPatch, compiler_settings: Any
) -> None:
    """Each branch is one graph, including the shared encoder."""
    convolutions: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        called = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
        convolutions.append(sum("conv" in name for name in called))
        return graph.forward

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    monkeypatch.setattr(
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer._do_i_compile",
        lambda self: True,
    )
    trainer = make_trainer("SemiDiffusionTrainer")
    compiler_settings.suppress_errors = False
    branches, shape = trainer.companion("diffusion").branches, (2, 1, 32, 32)
    x, noise = torch.randn(shape), torch.randn(2, branches.num_classes, 32, 32)
    networks = trainer.bare_network.encoder, branches.psi
    t = torch.tensor([3, 7])
    for compiled, uncompiled in (
        (branches.predict_psi(networks[0], x), branches.psi_path(networks[0], x)),
        (branches.denoise(networks[0], x, noise, t), branches.xi_path(networks[0], x, noise, t)),
    ):
        torch.testing.assert_close(compiled, uncompiled, rtol=1e-5, atol=1e-6)
    layers = (nn.Conv2d, nn.ConvTranspose2d)
    counts = [sum(isinstance(m, layers) for m in network.modules()) for network in networks]
    unused = len(branches.psi.seg_layers) - 1  # those of deep supervision
    assert convolutions == [sum(counts) - unused] * 2
    assert not torch._dynamo.utils.counters["graph_break"]
    names = {key for key in trainer._companions.state_dict() if "_orig_mod" in key}
    assert not names


@pytest.mark.parametrize("name", UNLABELLED_TRAINERS)
def test_compiled_networks_train_to_the_same_weights(
    name: str, make_trainer: Any, monkeypatch: pytest.MonkeyPatch, compiler_settings: Any
) -> None:
    """The graphs of torch.compile are run by PyTorch itself."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    weights = []
    for compiles in (False, True):
        monkeypatch.setattr(
            "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer._do_i_compile",
            lambda self, compiles=compiles: compiles,
        )
        trainer = make_trainer(name)
        assert trainer.compiled.compiles == compiles
        compiler_settings.suppress_errors = False  # as a trainer asks
        for _ in range(STEPS):
            trainer.train_step(next(trainer.dataloader_train))
        weights.append({**weights_of(trainer.bare_network), **weights_of(trainer._companions)})
    assert graphs and not torch._dynamo.utils.counters["graph_break"]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.parametrize(
    ("name", "settings", "networks"),
    [("SemiMeanTeacherTrainer", {}, 2), ("SemiCPSTrainer", {"deploy": "average"}, 4)],
)
def test_validated_networks_are_compiled(
    name: str,
    settings: Any,
    networks: int,
    make_trainer: Any,
    monkeypatch: pytest.MonkeyPatch,
    compiler_settings: Any,
) -> None:
    ran: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        def run(*inputs: Any) -> Any:
            ran.append(graph)
            return graph.forward(*inputs)

        is_network = any("conv" in str(node.target) for node in graph.graph.nodes)
        return run if is_network else graph.forward  # nnU-Net's losses are compiled, too

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    monkeypatch.setattr(
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer._do_i_compile",
        lambda self: True,
    )
    trainer = make_trainer(name, **settings)
    compiler_settings.suppress_errors = False
    trainer.on_validation_epoch_start()
    batch, outputs = next(trainer.dataloader_val), []
    for compiles in (True, True, False):
        if not compiles:
            trainer.network = trainer.bare_network
            trainer.compiled = CompiledNetworks(trainer.network)
        ran.clear()
        with torch.no_grad():
            outputs.append(trainer.validation_step(deepcopy(batch)))
        assert len(ran) == (networks if compiles else 0)
    for key, value in outputs[2].items():
        for compiled in outputs[:2]:
            torch.testing.assert_close(torch.as_tensor(compiled[key]), torch.as_tensor(value))
