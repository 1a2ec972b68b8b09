"""Frozen networks, and networks inside the wrapper of torch.compile."""

import torch
from torch import nn

from semi_nnunet.networks.frozen import FrozenNetworks, load_pretrained_encoder, unwrap_compiled


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))


class WithEncoder(nn.Module):
    """Remembers whether its encoder's weights were loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.times_loaded = 0

    def load_pretrained(self) -> None:
        self.times_loaded += 1


def test_frozen_networks_receive_no_gradient_and_never_change():
    frozen, student = FrozenNetworks([small_network(), small_network()]), nn.Conv2d(1, 1, 1)
    whole = nn.ModuleDict({"models": frozen, "student": student})
    whole.train()
    assert student.training and not any(module.training for module in frozen.modules())
    original = {name: value.clone() for name, value in frozen.state_dict().items()}
    x = student(torch.randn(2, 1, 8, 8))
    answers = [network(x) for network in frozen]
    assert torch.equal(answers[0], frozen[0](x))  # no dropout
    sum(answer.sum() for answer in answers).backward()
    assert all(parameter.grad is None for parameter in frozen.parameters())
    assert student.weight.grad is not None  # gradients pass through to their input
    for name, value in frozen.state_dict().items():  # statistics, too
        assert torch.equal(value, original[name])


def test_train_and_eval_return_the_networks_themselves():
    frozen = FrozenNetworks([small_network()])
    assert frozen.train() is frozen and frozen.eval() is frozen and not frozen.training


def test_a_compiled_network_is_unwrapped_to_the_very_same_weights():
    network = small_network()
    compiled = torch.compile(network)  # compiles when it is called first
    assert compiled is not network
    assert unwrap_compiled(compiled) is network and unwrap_compiled(network) is network


def test_an_encoder_is_loaded_if_the_network_has_one():
    network = WithEncoder()
    load_pretrained_encoder(network)
    load_pretrained_encoder(torch.compile(network))
    assert network.times_loaded == 2
    original = {name: value.clone() for name, value in small_network().state_dict().items()}
    plain = small_network()
    load_pretrained_encoder(plain)
    assert all(torch.equal(original[name], value) for name, value in plain.state_dict().items())
