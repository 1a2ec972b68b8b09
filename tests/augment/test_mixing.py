"""Mixing by boxes."""

import pytest
import torch

from semi_nnunet.augment.mixing import (
    BoxMix,
    TargetPatches,
    join_patches,
    sample_box_mix,
    sample_boxes,
)

SPATIAL = {"2d": (12, 9), "3d": (6, 9, 7)}
each_shape = pytest.mark.parametrize("spatial", SPATIAL.values(), ids=SPATIAL)


@each_shape
@pytest.mark.parametrize("edge", [0.01, 0.3, 2 / 3, 1.0])
def test_a_box_has_the_right_number_of_voxels_and_is_solid(spatial, edge):
    boxes = sample_boxes(50, spatial, edge, torch.device("cpu"))
    lengths = [max(1, round(size * edge)) for size in spatial]
    assert boxes.shape == (50, 1, *spatial) and boxes.dtype == torch.bool
    for box in boxes[:, 0]:
        corners = box.nonzero()
        extent = corners.amax(0) - corners.amin(0) + 1
        assert extent.tolist() == lengths
        assert box.sum() == torch.tensor(lengths).prod()


@each_shape
def test_boxes_reach_every_border(spatial):
    boxes = sample_boxes(500, spatial, 0.5, torch.device("cpu"))[:, 0]
    assert boxes.any(0).all()
    assert len({tuple(box.nonzero()[0].tolist()) for box in boxes}) > 10


@each_shape
def test_image_probabilities_and_mask_get_the_same_box(spatial):
    batch = torch.arange(4.0).view(4, 1, *[1] * len(spatial)).expand(4, 3, *spatial)
    mix = sample_box_mix(batch, 0.5, 1.0)
    image, one_channel = mix(batch), mix(batch[:, :1])
    mask = mix(batch[:, :1] == 2)
    for channel in image.split(1, 1):
        assert torch.equal(channel, one_channel)
    assert torch.equal(mask, one_channel == 2)
    assert mask.dtype == torch.bool


@each_shape
def test_each_voxel_comes_from_the_same_place_of_the_sample_or_its_partner(spatial):
    x = torch.randn(3, 2, *spatial)
    mix = sample_box_mix(x, 0.6, 1.0)
    y = mix(x)
    for b in range(3):
        box = mix.box[b, 0]
        assert torch.equal(y[b][:, box], x[mix.partner[b]][:, box])
        assert torch.equal(y[b][:, ~box], x[b][:, ~box])


@each_shape
def test_mixing_and_argmax_commute(spatial):
    probs = torch.softmax(torch.randn(4, 3, *spatial), 1)
    mix = sample_box_mix(probs, 2 / 3, 0.7)
    assert torch.equal(mix(probs).argmax(1, keepdim=True), mix(probs.argmax(1, keepdim=True)))


@each_shape
def test_a_batch_of_one_stays_as_it_is(spatial):
    x = torch.randn(1, 2, *spatial)
    assert torch.equal(sample_box_mix(x, 0.5, 1.0)(x), x)


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_no_sample_is_its_own_partner_and_each_is_used_once(batch_size):
    mix = sample_box_mix(torch.zeros(batch_size, 1, 4, 4), 0.5, 1.0)
    assert (mix.partner != torch.arange(batch_size)).all()
    assert sorted(mix.partner.tolist()) == list(range(batch_size))


def test_probability_zero_is_the_identity_and_one_mixes_every_sample():
    x = torch.randn(6, 1, 8, 8)
    assert torch.equal(sample_box_mix(x, 0.5, 0.0)(x), x)
    mixed = sample_box_mix(x, 0.5, 1.0)(x)
    assert all(not torch.equal(mixed[b], x[b]) for b in range(6))


def test_probability_is_the_share_of_mixed_samples():
    mix = sample_box_mix(torch.zeros(2000, 1, 4, 4), 0.5, 0.3)
    assert mix.box.flatten(1).any(1).float().mean().item() == pytest.approx(0.3, abs=0.05)


def test_the_same_seed_gives_the_same_mix():
    x = torch.randn(4, 1, 8, 8)
    mixed = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        mixed.append(sample_box_mix(x, 0.5, 0.5)(x))
    assert torch.equal(mixed[0], mixed[1]) and not torch.equal(mixed[0], mixed[2])


def test_gradients_return_to_where_the_voxels_came_from():
    x = torch.randn(2, 1, 4, 4, requires_grad=True)
    box = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    box[0, 0, :2] = True
    mix = BoxMix(box, torch.tensor([1, 0]))
    mix(x)[0].sum().backward()
    assert torch.equal(x.grad[1], box[0].float()) and torch.equal(x.grad[0], 1 - box[0].float())


def make_patches(count: int, annotated: torch.Tensor | None = None) -> TargetPatches:
    target = torch.rand(count, 3, 4, 4).softmax(1)
    return TargetPatches(
        torch.rand(count, 1, 4, 4), target, torch.rand(count, 1, 4, 4) > 0.3, annotated
    )


def test_halves_repetitions_and_chunks_are_the_same_patches():
    patches = make_patches(5, torch.rand(5, 3) > 0.5)
    assert torch.equal(patches.half(False).x, patches.x[:2])
    assert torch.equal(patches.half(True).annotated, patches.annotated[2:])
    assert torch.equal(patches.repeated(7).target[5:], patches.target[:2])
    assert patches.repeated(5) is patches
    for chunk, expected in zip(patches.chunk(2), patches.mask.chunk(2), strict=True):
        assert torch.equal(chunk.mask, expected)
    single = make_patches(1)
    assert torch.equal(single.half(False).x, single.x) and torch.equal(
        single.half(True).x, single.x
    )


def test_joined_patches_without_annotation_annotate_all_classes():
    partial, full = make_patches(2, torch.tensor([[True, False, True]] * 2)), make_patches(1)
    joined = join_patches([partial, full])
    assert joined.annotated.tolist() == [[True, False, True]] * 2 + [[True] * 3]
    assert torch.equal(joined.mask, torch.cat([partial.mask, full.mask]))
    assert join_patches([full, full]).annotated is None


def test_only_voxels_and_classes_of_both_mixed_patches_have_a_target():
    patches = make_patches(2, torch.tensor([[True, True, False], [True, True, True]]))
    mixed = patches.mixed(lambda x: 0.6 * x + 0.4 * x.flip(0), exclusive=True)
    assert torch.equal(mixed.mask, patches.mask & patches.mask.flip(0))
    assert mixed.annotated.flatten(1).tolist() == [[True, True, False]] * 2
    assert not mixed.target[:, 2].any()
    torch.testing.assert_close(mixed.target.sum(1), torch.ones(2, 4, 4))
