"""Time alternative ways to run a network that training steps do not use.

    python scripts/benchmark_variants.py
    python scripts/benchmark_variants.py --device cuda --patch 80 112 112 --batch-size 2

The alternatives: channels-last memory, labelled and unlabelled patches in one batch, PyTorch's
inference mode for passes without gradient, and fused optimizers. Each takes turns with the way of
the steps. The table has medians and quartiles of the rounds, and the ratio of the medians: below 1
the alternative is faster.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from semi_nnunet.util.timing import in_turn

CLASSES, FEATURES, STAGES = 4, 16, 4
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "Adam": torch.optim.Adam,
    "SGD": partial(torch.optim.SGD, momentum=0.99, nesterov=True),
}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add, default = parser.add_argument, "(default: %(default)s)"
    add("--device", default="cpu", type=torch.device, help=default)
    add("--rounds", type=int, default=9, help=default)
    add("--patch", type=int, nargs="+", help="edges, default: 32 40 56, 96 96 and 56 40")
    add("--batch-size", type=int, help="default: 2 in 3d, 12 in 2d")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    print("| way | patches | precision | as it is, ms | in this way, ms | ratio |")
    print("|---|---|---|---|---|---|")
    for patch in [args.patch] if args.patch else [(32, 40, 56), (96, 96), (56, 40)]:
        size = args.batch_size or (2 if len(patch) == 3 else 12)
        for dtype in (torch.bfloat16, torch.float32):
            passes = Passes(size, patch, args.device, dtype)
            for way, parts in passes.ways().items():
                what = f"{size} x {' x '.join(map(str, patch))}", f"{dtype}".partition(".")[2]
                print_row((way, *what), parts, args.rounds, args.device)
    for name, make in OPTIMIZERS.items():
        now, fused = (optimizer_step(make, fused, args.device) for fused in (False, True))
        print_row((f"fused {name}", "", "float32"), (now, fused), args.rounds, args.device)


def print_row(
    names: Sequence[str],
    parts: tuple[Callable[[], object], Callable[[], object]],
    rounds: int,
    device: torch.device,
) -> None:
    """Time the way of the steps and an alternative, and print a line of the table."""
    times = in_turn({"now": parts[0], "other": parts[1]}, rounds, device)
    now, other = times["now"], times["other"]
    told = [[f"{1000 * s:.1f}" for s in (one.median, one.low, one.high)] for one in (now, other)]
    seconds = [f"{median} ({low} to {high})" for median, low, high in told]
    cells = [*names, *seconds, f"{other.median / now.median:.2f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


class Passes:
    """A network, and passes through it.

    Args:
        size: patches in a batch.
        patch: their edges.
        device: of the network.
        dtype: that it computes in.
    """

    def __init__(
        self, size: int, patch: Sequence[int], device: torch.device, dtype: torch.dtype
    ) -> None:
        self.device, self.dtype = device, dtype
        channels_last = torch.channels_last_3d if len(patch) == 3 else torch.channels_last
        self.network = network_of(len(patch)).to(device)
        self.other = network_of(len(patch)).to(device).to(memory_format=channels_last)
        self.labelled, self.unlabelled = (
            torch.randn(size, 1, *patch, device=device) for _ in range(2)
        )
        self.x_other = self.unlabelled.to(memory_format=channels_last)

    def ways(self) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
        """Return name -> the way of the steps and the alternative."""
        x, both = self.unlabelled, torch.cat([self.labelled, self.unlabelled])
        ahead = partial(self.outputs, self.network, x)
        return {
            "channels last": (
                partial(self.both_ways, self.network, x),
                partial(self.both_ways, self.other, self.x_other),
            ),
            "one batch": (self.one_by_one, partial(self.both_ways, self.network, both)),
            "inference mode": (torch.no_grad()(ahead), torch.inference_mode()(ahead)),
        }

    def one_by_one(self) -> None:
        """Run labelled patches, then unlabelled ones."""
        self.both_ways(self.network, self.labelled)
        self.both_ways(self.network, self.unlabelled)

    def both_ways(self, network: nn.Module, x: torch.Tensor) -> None:
        """Run a forward and a backward pass."""
        network.zero_grad()
        torch.stack(
            [one.float().square().mean() for one in self.outputs(network, x)]
        ).sum().backward()

    def outputs(self, network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs at all levels of deep supervision."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            said: list[torch.Tensor] = network(x)
        return said


def network_of(axes: int) -> nn.Module:
    """Make a plain U-Net of the size that a CPU budget plans."""
    convolution, norm = {
        2: (nn.Conv2d, nn.InstanceNorm2d), 3: (nn.Conv3d, nn.InstanceNorm3d)
    }[axes]  # fmt: skip
    torch.manual_seed(0)
    features = [FEATURES * 2**stage for stage in range(STAGES)]
    strides = [1, *[2] * (STAGES - 1)]
    return PlainConvUNet(
        1, STAGES, features, convolution, 3, strides, 2, CLASSES, 2, conv_bias=True, norm_op=norm,
        norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )  # fmt: skip


def optimizer_step(
    make: Callable[..., torch.optim.Optimizer], fused: bool, device: torch.device
) -> Callable[[], object]:
    """Return a step of an optimizer of the network in 3-D."""
    parameters = [*network_of(3).to(device).parameters()]
    for one in parameters:
        one.grad = torch.randn_like(one)
    return make(parameters, lr=1e-6, fused=fused).step


if __name__ == "__main__":
    main()
