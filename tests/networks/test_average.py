"""The average of several networks."""

import pytest
import torch
from torch import nn

from semi_nnunet.networks.average import NetworkAverage, find_deep_supervision_modules
from tests.networks.unets import unet


def members(count: int = 3) -> list[nn.Module]:
    torch.manual_seed(0)
    return [unet("plain", 2, 1) for _ in range(count)]


def test_every_level_of_deep_supervision_is_averaged():
    nets, x = members(), torch.randn(2, 1, 16, 16)
    levels = [net(x) for net in nets]
    averaged = NetworkAverage(nets)(x)
    assert len(averaged) == len(levels[0]) > 1
    for level, *logits in zip(averaged, *levels, strict=True):
        torch.testing.assert_close(level, (logits[0] + logits[1] + logits[2]) / 3)


def test_logits_are_averaged_and_not_probabilities():
    nets, x = members(2), torch.randn(2, 1, 16, 16)
    for switch in find_deep_supervision_modules(nn.ModuleList(nets)):
        switch.deep_supervision = False
    averaged = NetworkAverage(nets)(x)
    assert averaged.shape == (2, 3, 16, 16)
    torch.testing.assert_close(averaged, (nets[0](x) + nets[1](x)) / 2)
    of_probs = torch.stack([torch.softmax(net(x), 1) for net in nets]).mean(0)
    assert not torch.allclose(torch.softmax(averaged, 1), of_probs, atol=1e-4)


def test_the_average_of_one_network_is_that_network():
    (net,), x = members(1), torch.randn(1, 1, 16, 16)
    for ours, expected in zip(NetworkAverage([net])(x), net(x), strict=True):
        assert torch.equal(ours, expected)


def test_every_member_has_one_switch_which_works_through_the_average():
    nets, x = members(2), torch.randn(1, 1, 16, 16)
    average = NetworkAverage(nets)
    switches = find_deep_supervision_modules(average)
    assert [id(switch) for switch in switches] == [id(net.decoder) for net in nets]
    for switch in switches:
        switch.deep_supervision = False
    assert isinstance(average(x), torch.Tensor) and isinstance(nets[1](x), torch.Tensor)
    assert find_deep_supervision_modules(nn.Conv2d(1, 1, 1)) == []


@pytest.mark.parametrize("training", [True, False])
def test_averaging_keeps_the_mode_of_the_members(training):
    nets = [net.train(training) for net in members(2)]
    average = NetworkAverage(nets)
    assert average.training == training
    assert all(module.training == training for net in nets for module in net.modules())
    average.train(not training)
    assert all(module.training != training for net in nets for module in net.modules())


def test_the_members_are_the_networks_themselves():
    nets = members(2)
    average = NetworkAverage(nets)
    assert average.members[0] is nets[0]
    assert {id(p) for p in average.parameters()} == {
        id(p) for net in nets for p in net.parameters()
    }
