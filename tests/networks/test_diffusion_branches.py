"""The parts that A&D adds to a planned U-Net."""

import pytest
import torch
from torch import nn

from semi_nnunet.networks.diffusion_branches import DiffusionBranches, time_embedding
from semi_nnunet.util.errors import UserError
from tests.networks.unets import branches

KINDS = ["plain", "residual"]


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_both_branches_answer_at_full_resolution(kind, dimensions):
    student, parts = branches(kind, dimensions)
    x = torch.randn(2, 2, *[8] * dimensions)
    x_t, t = torch.randn(2, 3, *[8] * dimensions), torch.tensor([3, 999])
    assert parts.predict_psi(student.encoder, x).shape == x_t.shape
    assert parts.denoise(student.encoder, x, x_t, t).shape == x_t.shape


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_diffusion_branch_begins_with_the_image_alone(kind, dimensions):
    student, parts = branches(kind, dimensions)
    x, t = torch.randn(2, 2, *[8] * dimensions), torch.tensor([3, 999])
    x_t = torch.randn(2, 3, *[8] * dimensions)

    def answer(x: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return parts.denoise(student.encoder, x, x_t, t)

    assert not torch.equal(answer(x, x_t, t), answer(x, -x_t, t))
    parts.begin_with_image()
    torch.testing.assert_close(answer(x, x_t, t), answer(x, -x_t, t.flip(0)))
    assert not torch.equal(answer(x, x_t, t), answer(-x, x_t, t))
    optimizer = torch.optim.SGD(parts.parameters(), lr=0.1)
    for _ in range(2):  # noisy labels and the time can still be learned
        optimizer.zero_grad()
        answer(x, x_t, t).square().mean().backward()
        optimizer.step()
    assert not torch.equal(answer(x, x_t, t), answer(x, -x_t, t))
    assert not torch.equal(answer(x, x_t, t), answer(x, x_t, t.flip(0)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_is_shared_and_not_owned(kind):
    student, parts = branches(kind, 2)
    owned = {id(p) for p in parts.parameters()}
    assert not owned & {id(p) for p in student.parameters()}
    x, x_t, t = torch.randn(2, 2, 8, 8), torch.randn(2, 3, 8, 8), torch.tensor([3, 999])
    for value in (parts.predict_psi(student.encoder, x), parts.denoise(student.encoder, x, x_t, t)):
        student.zero_grad(set_to_none=True)
        value.square().sum().backward()
        reached = [p.grad is not None and bool(p.grad.any()) for p in student.encoder.parameters()]
        assert sum(reached) > len(reached) / 4
        assert all(p.grad is None for p in student.decoder.seg_layers.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_denoising_depends_on_image_noise_and_time(kind):
    student, parts = branches(kind, 2)
    x, x_t, t = torch.randn(1, 2, 8, 8), torch.randn(1, 3, 8, 8), torch.tensor([500])

    def answer(x, x_t, t):
        return parts.denoise(student.encoder, x, x_t, t)

    reference = answer(x, x_t, t)
    assert torch.equal(reference, answer(x, x_t, t))
    for changed in ((x + 1, x_t * 2, t), (x, x_t + torch.randn_like(x_t), t), (x, x_t, t - 400)):
        assert not torch.allclose(reference, answer(*changed), atol=1e-4)


def test_every_parameter_of_the_branches_is_of_use():
    student, parts = branches("plain", 2)
    x, x_t, t = torch.randn(2, 2, 8, 8), torch.randn(2, 3, 8, 8), torch.tensor([3, 999])
    loss = parts.denoise(student.encoder, x, x_t, t) + parts.predict_psi(student.encoder, x)
    loss.square().sum().backward()
    unused = {name for name, p in parts.named_parameters() if p.grad is None}
    assert all("seg_layers.0" in name for name in unused)  # the low-resolution outputs


def test_times_are_told_apart():
    embedded = time_embedding(torch.tensor([0, 1, 500, 999]))
    assert embedded.shape == (4, 128)
    distances = torch.cdist(embedded, embedded) + torch.eye(4) * 10
    assert distances.min() > 0.3
    assert embedded[0, :64].tolist() == [1.0] * 64 and embedded[0, 64:].tolist() == [0.0] * 64


def test_another_architecture_is_refused():
    with pytest.raises(UserError, match="shares the encoder of a U-Net of nnU-Net's"):
        DiffusionBranches(nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1))
