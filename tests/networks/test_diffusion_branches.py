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
def test_both_branches_predict_at_full_resolution(kind, dimensions):
    student, added = branches(kind, dimensions)
    x = torch.randn(2, 2, *[8] * dimensions)
    x_t, t = torch.randn(2, 3, *[8] * dimensions), torch.tensor([3, 999])
    assert added.predict_psi(student.encoder, x).shape == x_t.shape
    assert added.denoise(student.encoder, x, x_t, t).shape == x_t.shape


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_diffusion_branch_starts_with_the_image_only(kind, dimensions):
    student, added = branches(kind, dimensions)
    x, t = torch.randn(2, 2, *[8] * dimensions), torch.tensor([3, 999])
    x_t = torch.randn(2, 3, *[8] * dimensions)

    def denoise(x: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return added.denoise(student.encoder, x, x_t, t)

    assert not torch.equal(denoise(x, x_t, t), denoise(x, -x_t, t))
    added.begin_with_image()
    torch.testing.assert_close(denoise(x, x_t, t), denoise(x, -x_t, t.flip(0)))
    assert not torch.equal(denoise(x, x_t, t), denoise(-x, x_t, t))
    optimizer = torch.optim.SGD(added.parameters(), lr=0.1)
    for _ in range(2):  # noisy labels and the time can still be learned
        optimizer.zero_grad()
        denoise(x, x_t, t).square().mean().backward()
        optimizer.step()
    assert not torch.equal(denoise(x, x_t, t), denoise(x, -x_t, t))
    assert not torch.equal(denoise(x, x_t, t), denoise(x, x_t, t.flip(0)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_is_shared_and_not_owned(kind):
    student, added = branches(kind, 2)
    owned = {id(p) for p in added.parameters()}
    assert not owned & {id(p) for p in student.parameters()}
    x, x_t, t = torch.randn(2, 2, 8, 8), torch.randn(2, 3, 8, 8), torch.tensor([3, 999])
    for value in (added.predict_psi(student.encoder, x), added.denoise(student.encoder, x, x_t, t)):
        student.zero_grad(set_to_none=True)
        value.square().sum().backward()
        reached = [p.grad is not None and bool(p.grad.any()) for p in student.encoder.parameters()]
        assert sum(reached) > len(reached) / 4
        assert all(p.grad is None for p in student.decoder.seg_layers.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_denoising_depends_on_image_noise_and_time(kind):
    student, added = branches(kind, 2)
    x, x_t, t = torch.randn(1, 2, 8, 8), torch.randn(1, 3, 8, 8), torch.tensor([500])

    def denoise(x, x_t, t):
        return added.denoise(student.encoder, x, x_t, t)

    reference = denoise(x, x_t, t)
    assert torch.equal(reference, denoise(x, x_t, t))
    for changed in ((x + 1, x_t * 2, t), (x, x_t + torch.randn_like(x_t), t), (x, x_t, t - 400)):
        assert not torch.allclose(reference, denoise(*changed), atol=1e-4)


def test_every_parameter_of_the_branches_receives_a_gradient():
    student, added = branches("plain", 2)
    x, x_t, t = torch.randn(2, 2, 8, 8), torch.randn(2, 3, 8, 8), torch.tensor([3, 999])
    loss = added.denoise(student.encoder, x, x_t, t) + added.predict_psi(student.encoder, x)
    loss.square().sum().backward()
    unused = {name for name, p in added.named_parameters() if p.grad is None}
    assert all("seg_layers.0" in name for name in unused)  # the low-resolution outputs


def test_embedded_times_differ():
    embedded = time_embedding(torch.tensor([0, 1, 500, 999]))
    assert embedded.shape == (4, 128)
    distances = torch.cdist(embedded, embedded) + torch.eye(4) * 10
    assert distances.min() > 0.3
    assert embedded[0, :64].tolist() == [1.0] * 64 and embedded[0, 64:].tolist() == [0.0] * 64


def test_another_architecture_is_refused():
    with pytest.raises(UserError, match="U-Nets"):
        DiffusionBranches(nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1))
