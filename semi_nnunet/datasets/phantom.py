"""A synthetic abdomen for the demo, in which unlabelled images help, and for fast tests.

A body has three organs: 1 is large and on one side, 2 is a pair of beans next to the spine, 3 is
small and near organ 1, sometimes touching it. Shape, position, contrast, texture, bias field and
noise vary continuously, so that a few labelled cases leave gaps that unlabelled ones fill. Blobs
that look like an organ but are at other positions are not labelled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter
from skimage import io

from semi_nnunet.raw.layout import DATASET_JSON
from semi_nnunet.util.errors import UserError

Shape = tuple[int, int, int]
Rng = np.random.Generator
Array = np.ndarray

SPACING_ZYX_MM = (2.5, 1.0, 1.0)  # mild anisotropy: nnU-Net plans 2d and 3d_fullres
IGNORE_LABEL = 4
FILE_ENDING = ".nii.gz"  # of the demo
LABEL_KINDS = ("labels", "regions", "ignore", "regions_ignore")

AIR, FAT, MUSCLE, INSIDE, BONE, VESSEL, STOMACH, MIMIC_2, MIMIC_3, ORGAN_1, ORGAN_2, ORGAN_3 = (
    range(12)
)
LABEL_OF_TISSUE = np.array([0] * 9 + [1, 2, 3], dtype=np.uint8)
# Two acquisitions; a case is between them. Organ 2 gets brighter than organ 1.
#                         air   fat   muscle inside bone  vessel stomach mimics      organs 1, 2, 3
INTENSITY_A = np.array([0.02, 0.24, 0.50, 0.38, 0.86, 0.50, 0.50, 0.52, 0.20, 0.60, 0.52, 0.20])
INTENSITY_B = np.array([0.02, 0.80, 0.32, 0.44, 0.24, 0.92, 0.28, 0.86, 0.26, 0.60, 0.86, 0.26])
TEXTURE_AMPLITUDE = np.array([0, 1, 0.8, 2.6, 1, 0.4, 1.5, 1.2, 0.5, 1.6, 1.2, 0.5])
TEXTURE_SCALE = np.array([0, 1, 0, 2, 0, 0, 1, 1, 0, 2, 1, 0])  # index into TEXTURE_SIGMAS
TEXTURE_SIGMAS = (0.6, 1.0, 1.8)  # voxels


def make_phantom(
    seed: int, shape: Shape = (24, 64, 64), channels: int = 1, difficulty: float = 1.0
) -> tuple[Array, Array]:
    """Make a case; the result depends only on the arguments.

    >>> image, label = make_phantom(seed=0, shape=(4, 16, 16))
    >>> image.shape, label.shape
    ((1, 4, 16, 16), (4, 16, 16))

    Args:
        seed: of all random numbers.
        shape: (z, y, x) in voxels; z = 1 gives the middle slice.
        channels: views of the same body with different contrast, bias field and noise.
        difficulty: scales the variation between cases; with 0 little but the shape varies.

    Returns:
        image (C, z, y, x) float32, about 0 to 1; label (z, y, x) uint8, 0 and organs 1 to 3.
    """
    rng = np.random.default_rng(seed)
    tissue = _tissues(rng, shape, difficulty)
    texture = _texture(rng, tissue)
    phase = 0.5 + (rng.uniform() - 0.5) * min(difficulty, 1.5) / 1.5
    image = [_acquire(rng, tissue, texture, phase + 0.4 * c, difficulty) for c in range(channels)]
    return np.stack(image).astype(np.float32), LABEL_OF_TISSUE[tissue]


def _smooth_field(rng: Rng, shape: Shape, waves: int = 3) -> Array:
    """Draw a smooth field (z, y, x), a cosine series, with mean 0 and standard deviation 1."""
    order = np.arange(waves + 1)
    weight = 1 / (1 + order[:, None, None] ** 2 + order[:, None] ** 2 + order**2)
    bases = [
        np.cos(np.pi * order[:, None] * _axis(n) / 2 + rng.uniform(0, 2 * np.pi, (waves + 1, 1)))
        for n in shape
    ]
    coefficients = weight * rng.normal(size=weight.shape)
    field = np.einsum("abc,az,by,cx->zyx", coefficients, *bases, optimize=True)
    return (field - field.mean()) / (field.std() + 1e-8)


def _axis(size: int) -> Array:
    """Return the voxel centres of an axis from -1 to 1."""
    return (np.arange(size) + 0.5) / size * 2 - 1


def _body_frame(rng: Rng, shape: Shape, difficulty: float) -> Array:
    """Draw coordinates (3, z, y, x) in which the body is about the cylinder y^2 + x^2 < 1."""
    z, y, x = np.meshgrid(*map(_axis, shape), indexing="ij")
    y, x = y - 0.06 * difficulty * rng.normal(), x - 0.06 * difficulty * rng.normal()
    angle = 0.12 * difficulty * rng.normal()
    y, x = np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x
    size = np.exp(0.06 * difficulty * np.clip(rng.normal(size=2), -2, 2))
    taper = 1 + 0.08 * rng.normal() * z
    y, x = y / (0.70 * size[0] * taper), x / (0.86 * size[1] * taper)
    warp = [_smooth_field(rng, shape) for _ in range(3)]
    strength = 0.02 + 0.025 * difficulty
    return np.stack([z, y, x]) + strength * np.stack(warp)


def _distance(
    rng: Rng,
    frame: Array,
    centre: Sequence[float] | Array,
    radii: Sequence[float] | Array,
    bend: float = 0.0,
    tilt: float = 0.0,
    roughness: float = 0.1,
) -> Array:
    """Compute the distance from the centre of a warped ellipsoid in radii: below 1 is inside.

    Args:
        bend: moves the ends along y by this much in x, which makes a bean.
        tilt: rotation in the plane, radians.
        roughness: relative standard deviation of the radius over the surface.
    """
    z, y, x = frame - np.reshape(centre, (3, 1, 1, 1))
    y, x = np.cos(tilt) * y - np.sin(tilt) * x, np.sin(tilt) * y + np.cos(tilt) * x
    x = x - bend * (y / radii[1]) ** 2
    distance = np.sqrt((z / radii[0]) ** 2 + (y / radii[1]) ** 2 + (x / radii[2]) ** 2)
    shape: Shape = distance.shape
    return distance * (1 + roughness * np.clip(_smooth_field(rng, shape), -2, 2))


def _tissues(rng: Rng, shape: Shape, difficulty: float) -> Array:
    """Draw the tissue of every voxel (z, y, x); later tissues cover earlier ones."""
    frame = _body_frame(rng, shape, difficulty)
    tissue = np.full(shape, AIR, dtype=np.uint8)
    radius = _distance(rng, frame, (0, 0, 0), (1e3, 1, 1), roughness=0.02)
    fat = max(0.09 + 0.06 * difficulty * rng.uniform(-1, 1), 0.02)
    for edge, wall in ((1.0, FAT), (1 - fat, MUSCLE), (0.91 - fat, INSIDE)):
        tissue[radius < edge] = wall
    inside = radius < 0.95 - fat
    _paint_surroundings(rng, frame, tissue, inside, difficulty)
    _paint_organs(rng, frame, tissue, inside, difficulty)
    return tissue


def _paint_surroundings(
    rng: Rng, frame: Array, tissue: Array, inside: Array, difficulty: float
) -> None:
    """Paint spine, vessel, stomach and the mimics of organs 2 and 3 into ``tissue``."""
    stomach = np.array([0, -0.36, 0.36]) + 0.08 * difficulty * rng.normal(size=3)
    tissue[inside & (_distance(rng, frame, stomach, (0.9, 0.24, 0.30)) < 1)] = STOMACH
    bubble = stomach + np.array([0, -0.11, 0.05])
    if rng.uniform() < 0.5:
        tissue[inside & (_distance(rng, frame, bubble, (0.5, 0.08, 0.16)) < 1)] = AIR
    for _ in range(rng.binomial(4, min(0.45 * difficulty, 1))):
        centre = rng.uniform((-0.8, -0.6, 0.05), (0.8, 0.15, 0.65))
        blob = _distance(rng, frame, centre, rng.uniform((0.3, 0.1, 0.1), (0.6, 0.2, 0.2))) < 1
        tissue[inside & blob] = rng.choice([MIMIC_2, MIMIC_3])
    tissue[_distance(rng, frame, (0, 0.60, 0), (1e3, 0.20, 0.16)) < 1] = BONE
    tissue[_distance(rng, frame, (0, 0.28, 0.07), (1e3, 0.085, 0.07)) < 1] = VESSEL


def _paint_organs(rng: Rng, frame: Array, tissue: Array, inside: Array, difficulty: float) -> None:
    """Paint the three labelled organs into ``tissue``, the small one last, on top."""

    def varied(values: Sequence[float], deviation: float) -> Array:
        return np.array(values) + deviation * difficulty * np.clip(rng.normal(size=3), -2, 2)

    def scaled(values: Sequence[float]) -> Array:
        return np.array(values) * np.exp(varied((0, 0, 0), 0.12))

    large = varied((0, -0.15, -0.46), 0.05)
    tilt = rng.normal() * 0.35 * difficulty
    body = _distance(rng, frame, large, scaled((1.3, 0.46, 0.34)), tilt=tilt, roughness=0.13)
    tissue[inside & (body < 1)] = ORGAN_1
    for side in (-1, 1):
        centre, radii = varied((0, 0.38, 0.44 * side), 0.05), scaled((0.8, 0.25, 0.14))
        tilt = side * (0.35 + 0.3 * difficulty * rng.normal())
        bean = _distance(rng, frame, centre, radii, bend=-0.10 * side, tilt=tilt)
        tissue[inside & (bean < 1)] = ORGAN_2
    centre = large + varied((0, 0.06, 0.42), 0.07)
    small = _distance(rng, frame, centre, scaled((0.55, 0.19, 0.14)), tilt=rng.normal() * 0.5)
    tissue[inside & (small < 1)] = ORGAN_3


def _texture(rng: Rng, tissue: Array) -> Array:
    """Draw smooth noise (z, y, x) with the scale and amplitude of the tissue of each voxel."""
    scales = []
    for sigma in TEXTURE_SIGMAS:
        noise = gaussian_filter(rng.normal(size=tissue.shape), (sigma / 2, sigma, sigma))
        scales.append(noise / (noise.std() + 1e-8))
    return np.choose(TEXTURE_SCALE[tissue], scales) * TEXTURE_AMPLITUDE[tissue]


def _acquire(rng: Rng, tissue: Array, texture: Array, phase: float, difficulty: float) -> Array:
    """Draw a channel: contrast, texture, blur, bias field, gamma, gain and Rician noise."""
    phase = abs((phase + 1) % 2 - 1)  # a triangle wave: any real number lies between A and B
    contrast = (1 - phase) * INTENSITY_A + phase * INTENSITY_B
    jitter = 0.035 * difficulty * rng.normal(size=contrast.size)
    jitter[[MIMIC_2, MIMIC_3]] = jitter[
        [ORGAN_2, ORGAN_3]
    ]  # otherwise brightness would reveal them
    contrast = np.maximum(contrast + jitter, 0.02)
    image = contrast[tissue] + 0.022 * texture
    image = gaussian_filter(np.maximum(image, 0), (0.3, 0.6, 0.6))
    image = image * np.exp(0.16 * difficulty * _smooth_field(rng, tissue.shape, waves=2))
    gamma, gain = np.exp(difficulty * rng.normal(size=2) * (0.2, 0.15))
    noise = 0.02 + 0.04 * difficulty * rng.uniform()
    real, imaginary = noise * rng.normal(size=(2, *tissue.shape))
    return gain * np.hypot(image**gamma + real, imaginary)


def write_phantom_dataset(
    folder: str | Path,
    labelled: int = 4,
    unlabelled: int = 28,
    test: int = 10,
    shape: Shape = (24, 64, 64),
    channels: int = 1,
    label_kind: str = "labels",
    seed: int = 0,
    file_ending: str = FILE_ENDING,
) -> None:
    """Write an nnU-Net raw data set of phantoms, with unlabelled images in imagesUn.

    Case i depends only on ``seed`` and i, so that other numbers of labelled cases keep the test
    cases. Unlabelled cases have no label on disk; test labels are always complete.

    Args:
        folder: for example nnUNet_raw/Dataset999_Phantom; must not contain cases.
        labelled, unlabelled, test: numbers of cases.
        shape: (z, y, x) in voxels; z is ignored for ".png", which gets the middle slice.
        channels: one file each; for ".png" 1 (grey) or 3 (one RGB file).
        label_kind: "labels", "regions" (they overlap), "ignore" (training labels cover some slices
            or a block, the rest is the ignore label) or "regions_ignore".
        seed: of the data set.
        file_ending: ".png", or an ending of SimpleITK.

    Raises:
        UserError: for an unknown label_kind, channels that do not fit, or a folder with cases.
    """
    folder, is_png = Path(folder), file_ending == ".png"
    _check(folder, channels, label_kind, is_png)
    shape = (1, *shape[1:]) if is_png else shape
    splits = ["Tr"] * labelled + ["Un"] * unlabelled + ["Ts"] * test
    seeds = np.random.SeedSequence(seed).generate_state(len(splits), np.uint64)
    for name in ("imagesTr", "labelsTr", "imagesUn", "imagesTs", "labelsTs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, split in enumerate(splits):
        image, label = make_phantom(int(seeds[i]), shape, channels)
        _write_image(folder / f"images{split}" / f"phantom_{i:04d}", image, file_ending)
        if split == "Tr" and "ignore" in label_kind:
            label = _annotate_partly(np.random.default_rng((int(seeds[i]), 1)), label)
        if split != "Un":
            _write_array(folder / f"labels{split}" / f"phantom_{i:04d}{file_ending}", label)
    content = _dataset_json(labelled, channels, label_kind, file_ending)
    (folder / DATASET_JSON).write_text(json.dumps(content, indent=2) + "\n")


def _check(folder: Path, channels: int, label_kind: str, is_png: bool) -> None:
    """Raise a UserError for wrong arguments before anything is written."""
    if label_kind not in LABEL_KINDS:
        raise UserError(f"label_kind must be one of {', '.join(LABEL_KINDS)}, got {label_kind!r}")
    if channels < 1 or (is_png and channels not in (1, 3)):
        rule = "1 (grey) or 3 (RGB) for .png" if is_png else "at least 1"
        raise UserError(f"channels must be {rule}, got {channels}")
    if any(folder.glob("*/phantom_*")):
        raise UserError(
            f"{folder} already contains phantom cases", fix="delete it or choose another folder"
        )


def _annotate_partly(rng: Rng, label: Array) -> Array:
    """Keep the labels of every third slice, or of a block around an organ; ignore the others."""
    keep = np.zeros(label.shape, dtype=bool)
    if label.shape[0] > 1 and rng.uniform() < 0.5:
        keep[rng.integers(3) :: 3] = True
    else:
        middle = rng.choice(np.argwhere(label)) if label.any() else np.array(label.shape) // 2
        reach = [max(size // 3, 1) for size in label.shape]
        ranges = zip(middle, reach, strict=True)
        keep[tuple(slice(max(m - r, 0), m + r + 1) for m, r in ranges)] = True
    return np.where(keep, label, IGNORE_LABEL).astype(np.uint8)


def _write_image(stem: Path, image: Array, file_ending: str) -> None:
    """Write an image (C, z, y, x): a file for each channel, or one PNG for all."""
    if file_ending == ".png":
        colours = np.clip(200 * image[:, 0], 0, 255).round().astype(np.uint8)
        pixels = colours.transpose(1, 2, 0) if len(colours) == 3 else colours[0]
        io.imsave(f"{stem}_0000.png", pixels, check_contrast=False)
        return
    for c, channel in enumerate(image):
        _write_array(stem.with_name(f"{stem.name}_{c:04d}{file_ending}"), channel)


def _write_array(path: Path, array: Array) -> None:
    """Write an array (z, y, x) to a file; a PNG has one slice."""
    if path.suffix == ".png":
        io.imsave(path, array[0], check_contrast=False)
        return
    picture = sitk.GetImageFromArray(array)
    picture.SetSpacing(SPACING_ZYX_MM[::-1])
    sitk.WriteImage(picture, str(path))


def _dataset_json(labelled: int, channels: int, label_kind: str, file_ending: str) -> dict:
    """Return the content of dataset.json; inner regions overwrite outer ones."""
    is_rgb = file_ending == ".png" and channels == 3
    names = "RGB" if is_rgb else [f"contrast_{c}" for c in range(channels)]
    labels: dict[str, int | list[int]] = {"background": 0, "large": 1, "pair": 2, "small": 3}
    content: dict = {"channel_names": {str(c): name for c, name in enumerate(names)}}
    if "regions" in label_kind:
        labels = {"background": 0, "all_organs": [1, 2, 3], "pair": [2, 3], "inner": [3]}
        content["regions_class_order"] = [1, 2, 3]
    if "ignore" in label_kind:
        labels["ignore"] = IGNORE_LABEL
    return content | {"labels": labels, "numTraining": labelled, "file_ending": file_ending}
