"""Channel dropout on the features of an encoder."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from semi_nnunet.core.stochastic import add_feature_dropout, drop_channels, freeze_batch_statistics
from semi_nnunet.util.errors import UserError

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}


def small_unet(dimensions: int = 2) -> PlainConvUNet:
    torch.manual_seed(0)
    return PlainConvUNet(
        input_channels=1,
        n_stages=3,
        features_per_stage=(4, 6, 8),
        conv_op=CONVOLUTION[dimensions],
        kernel_sizes=3,
        strides=(1, 2, 2),
        n_conv_per_stage=1,
        num_classes=2,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        nonlin=nn.LeakyReLU,
    ).eval()


def seen_by_the_decoder(network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The skip features as they reach the decoder."""
    seen: list[torch.Tensor] = []
    handle = network.decoder.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0]))
    with torch.no_grad():
        network(x)
    handle.remove()
    return seen


def test_probability_zero_is_the_network_itself():
    network = small_unet()
    assert add_feature_dropout(network, 0.0, every_level=True) is network


@pytest.mark.parametrize("dimensions", [2, 3])
def test_its_passes_differ_and_those_of_the_network_do_not(dimensions):
    network = small_unet(dimensions)
    x = torch.randn(2, 1, *[8] * dimensions)
    with torch.no_grad():
        plain = network(x)
        disturbed = add_feature_dropout(network, 0.5)
        assert not torch.equal(disturbed(x), disturbed(x))
        assert torch.equal(network(x), plain)
    assert type(disturbed) is type(network) and disturbed.encoder.encoder is network.encoder


def test_it_shares_the_weights_of_the_network():
    network = small_unet()
    names, x = [*network.state_dict()], torch.randn(2, 1, 8, 8)
    disturbed = add_feature_dropout(network, 0.5, every_level=True)
    assert {*map(id, disturbed.parameters())} == {*map(id, network.parameters())}
    assert [*network.state_dict()] == names
    network.load_state_dict({key: value + 1 for key, value in network.state_dict().items()})
    torch.manual_seed(1)
    expected = add_feature_dropout(network, 0.5, every_level=True)(x)
    torch.manual_seed(1)
    assert torch.equal(disturbed(x), expected)
    disturbed(x).sum().backward()
    assert all(parameter.grad is not None for parameter in network.encoder.parameters())


@pytest.mark.parametrize("every_level", [False, True])
def test_whole_channels_are_dropped_and_the_rest_rescaled(every_level):
    network = small_unet()
    x = torch.randn(4, 1, 8, 8)
    plain = seen_by_the_decoder(network, x)
    dropped = seen_by_the_decoder(add_feature_dropout(network, 0.5, every_level), x)
    for level, (original, result) in enumerate(zip(plain, dropped, strict=True)):
        if level < len(plain) - 1 and not every_level:
            assert torch.equal(original, result)
            continue
        gone = (result == 0).all((2, 3))
        assert gone.any() and not gone.all()
        torch.testing.assert_close(result[~gone], 2 * original[~gone])


def test_the_encoder_may_be_in_a_nested_network():
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = small_unet()

        @property
        def encoder(self) -> nn.Module:
            return self.model.encoder

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x)

    network, x = Around(), torch.randn(2, 1, 8, 8)
    disturbed = add_feature_dropout(network, 0.5)
    assert not torch.equal(disturbed(x), network(x)) and torch.equal(network(x), network.model(x))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_the_expectation_is_preserved(probability):
    torch.manual_seed(0)
    features = torch.ones(200, 500, 1, 1)
    dropped = drop_channels(features, probability)
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)
    assert (dropped == 0).float().mean().item() == pytest.approx(probability, abs=0.01)


def test_samples_lose_different_channels():
    torch.manual_seed(0)
    dropped = drop_channels(torch.ones(2, 64, 2, 2, 2), 0.5)
    assert not torch.equal(dropped[0], dropped[1])


def test_gradients_flow_only_to_channels_that_are_not_dropped():
    features = torch.ones(1, 50, 2, 2, requires_grad=True)
    dropped = drop_channels(features, 0.5)
    dropped.sum().backward()
    torch.testing.assert_close(features.grad, dropped.detach())


def test_a_network_without_an_encoder_is_refused_by_name():
    with pytest.raises(UserError, match="Conv2d"):
        add_feature_dropout(torch.nn.Conv2d(1, 1, 1), 0.5)


def test_batch_normalisation_uses_and_keeps_its_statistics_inside_the_block():
    torch.manual_seed(0)
    learning, fixed = nn.BatchNorm2d(2), nn.BatchNorm2d(2).eval()
    network = nn.Sequential(nn.Conv2d(1, 2, 1), learning, nn.Dropout(), fixed)
    x = torch.randn(4, 2, 5, 5)
    original = learning.running_mean.clone()
    with freeze_batch_statistics(network, nn.Linear(1, 1)):
        assert torch.equal(learning(x)[:1], learning(x[:1]))  # independent of the batch
        assert network[2].training  # dropout stays active
    assert torch.equal(learning.running_mean, original)
    with pytest.raises(RuntimeError, match="in the block"), freeze_batch_statistics(network):
        raise RuntimeError("in the block")
    assert learning.training and not fixed.training
    learning(x)
    assert not torch.equal(learning.running_mean, original)
