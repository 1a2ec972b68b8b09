"""The memory of resampling is estimated, and images that need too much are named."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

from semi_nnunet.raw.readers import Geometry
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.memory import GIB
from semi_nnunet.verify import memory_needs
from semi_nnunet.verify.memory_needs import estimate_memory
from tests.data.copied import Copy, names
from tests.data.raw_datasets import voxels, write


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("shape", "spacing", "target"),
    [
        ((16, 24, 24), (1.0, 1.0, 1.0), (0.2, 0.2, 0.2)),
        ((10, 30, 30), (40.0, 0.5, 0.5), (4.0, 0.2, 0.2)),  # slice by slice, then between them
        ((20, 30, 30), (5.0, 1.0, 1.0), (5.0, 0.2, 0.2)),
    ],
)
def test_the_estimate_is_the_memory_that_nnunet_takes(
    shape: tuple[int, ...], spacing: tuple[float, ...], target: tuple[float, ...], channels: int
) -> None:
    new, needed = estimate_memory(Geometry(shape, spacing), channels, (0, 1, 2), target)
    data = np.random.default_rng(0).random((channels, *shape), dtype=np.float32)
    options: dict[str, Any] = {"order_z": 0, "force_separate_z": None}
    resample_data_or_seg_to_shape(data, new, spacing, target, False, 3, **options)  # imports
    tracemalloc.start()
    data = resample_data_or_seg_to_shape(data, new, spacing, target, False, 3, **options)
    label = np.zeros((1, *shape), np.int8)
    resample_data_or_seg_to_shape(label, new, spacing, target, True, 1, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.shape == (channels, *new)
    assert needed == pytest.approx(peak, rel=0.15)


def test_axes_are_transposed_as_in_the_plans_and_2d_keeps_the_slices() -> None:
    place = Geometry((30, 200, 100), (3.0, 1.0, 2.0))
    assert estimate_memory(place, 1, (0, 1, 2), (1.0, 1.0, 1.0))[0] == (90, 200, 200)
    assert estimate_memory(place, 1, (2, 0, 1), (1.0, 1.0, 1.0))[0] == (200, 90, 200)
    assert estimate_memory(place, 1, (0, 1, 2), (0.5, 0.5))[0] == (30, 400, 400)
    assert estimate_memory(place, 1, (1, 0, 2), (1.0, 4.0))[0] == (200, 90, 50)


def test_absurd_sizes_do_not_overflow() -> None:
    shape, needed = estimate_memory(Geometry((500,) * 3, (1e12,) * 3), 4, (0, 1, 2), (1e-3,) * 3)
    assert needed > 10**40 and all(size > 10**17 for size in shape)


@pytest.fixture
def exploding(copy: Copy) -> str:
    """An unlabelled case whose spacing is a thousand times too large."""
    case = names(copy.raw / "imagesUn")[0]
    image = voxels(0, (12, 32, 32), np.float32)
    write(copy.raw / f"imagesUn/{case}_0000.nii.gz", image, (1000.0, 1000.0, 2.5))
    return case


def test_too_large_images_are_named_before_any_is_preprocessed(copy: Copy, exploding: str) -> None:
    skipped = copy.preprocessed / "semi_skipped.json"
    before = {path: path.stat().st_mtime_ns for path in copy.preprocessed.glob("nnUNetPlans_*/*")}
    skipped.unlink(missing_ok=True)
    with pytest.raises(UserError, match="--skip-bad sets them aside") as error:
        copy.prepare()
    (problem,) = error.value.problems
    assert problem.where == f"imagesUn/{exploding}_0000.nii.gz"
    assert "for 2d its (12, 32, 32) voxels of (2.5, 1000, 1000) mm become (12, " in problem.what
    there = memory_needs.memory_bytes()
    assert there is not None and f"this machine has {there / GIB:.1f} GiB" in problem.what
    assert "correct the spacing" in problem.fix
    after = {path: path.stat().st_mtime_ns for path in copy.preprocessed.glob("nnUNetPlans_*/*")}
    assert after == before and not skipped.exists()


def test_too_large_cases_are_skipped_on_request(
    copy: Copy, exploding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert copy.prepare(skip_bad=True) == {"2d": (5, 3)}
    out = capsys.readouterr().out
    assert "set aside 1 unlabelled cases that do not fit into the memory" in out
    assert f"imagesUn/{exploding}_0000.nii.gz: for 2d" in out
    assert exploding in (copy.preprocessed / "semi_skipped.json").read_text()


def test_a_skipped_outlier_needs_no_memory(copy: Copy, exploding: str) -> None:
    assert copy.prepare(skip_outliers=True) == {"2d": (5, 3)}
    assert exploding in (copy.preprocessed / "semi_skipped.json").read_text()


def test_with_unknown_memory_nothing_is_refused(
    copy: Copy, exploding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_needs, "memory_bytes", lambda: None)
    monkeypatch.setattr("semi_nnunet.preprocessing.prepare.preprocess_labelled", lambda *_: None)
    monkeypatch.setattr("semi_nnunet.preprocessing.shards.preprocess_cases", lambda *_: None)
    assert copy.prepare() == {"2d": (5, 4)}


def test_an_image_that_fits_is_not_named(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_needs, "memory_bytes", lambda: 2_000_000)
    assert copy.prepare() == {"2d": (5, 4)}
    monkeypatch.setattr(memory_needs, "memory_bytes", lambda: 100_000)
    with pytest.raises(UserError, match="resampling 4 unlabelled images"):
        copy.prepare()
