"""Write a small synthetic FLARE challenge in the layout of the download: CTs of 13 organs.

    python scripts/flare_tree.py FLARE22 --year 22
    python scripts/flare_tree.py FLARE23 --year 23

In FLARE22 the labelled cases annotate all organs; in FLARE23 each annotates some of them, and only
the label shows which. ``scripts/flare_recipes.sh`` follows the recipes on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from semi_nnunet.datasets.flare22 import LABELS

SHAPE, SPACING_XYZ_MM = (24, 64, 64), (3.0, 3.0, 5.0)
BODY_HU, FAT_HU, NOISE_HU = 40.0, -90.0, 12.0
TUMOUR = 14
TUNING = ("imagesVal", "labelsVal", "FLARETs_{:04d}")
LAYOUTS: dict[int, dict[str, tuple[str, str | None, str]]] = {
    # year -> part -> folder of images, of labels, and names
    22: {
        "labelled": ("Training/labelled/images", "Training/labelled/labels", "FLARE22_Tr_{:04d}"),
        "unlabelled": ("Training/unlabelled", None, "Case_{:05d}"),
        "tuning": TUNING,
    },
    23: {
        "labelled": ("imagesTr2200", "labelsTr2200", "FLARE23_{:04d}"),
        "unlabelled": ("unlabelTr1800", None, "FLARE23_2{:03d}"),
        "tuning": TUNING,
    },
}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument("out", type=Path, help="new folder")
    made.add_argument("--year", type=int, choices=LAYOUTS, default=22)
    made.add_argument("--labelled", type=int, default=6, help="cases (default: %(default)s)")
    made.add_argument("--unlabelled", type=int, default=8, help="cases (default: %(default)s)")
    made.add_argument("--tuning", type=int, default=3, help="cases (default: %(default)s)")
    return made


def abdomen(rng: np.random.Generator, tumour: bool) -> tuple[np.ndarray, np.ndarray]:
    """A CT in HU, float32 (z, y, x), and its label, uint8.

    Every organ is an ellipsoid with its own place, size and density, which vary from case to case.
    """
    zyx = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    body = (zyx[1] ** 2 + zyx[2] ** 2) < 0.9
    image, label = np.where(body, FAT_HU, -1000.0), np.zeros(SHAPE, np.uint8)
    for value in range(1, len(LABELS) + 1):
        angle = 2 * np.pi * value / len(LABELS)
        ring = 0.62 if value % 2 else 0.38
        centre = np.array([0.25 * np.cos(3 * angle), ring * np.sin(angle), ring * np.cos(angle)])
        centre += rng.normal(0, 0.04, 3)
        radius = np.array([0.6, 0.14, 0.14]) * rng.uniform(0.85, 1.2, 3)
        inside = (((zyx - centre[:, None, None, None]) / radius[:, None, None, None]) ** 2).sum(0)
        label[inside < 1] = value
        image[inside < 1] = BODY_HU + 18 * (value % 5) + rng.normal(0, 6)
    if tumour:
        at = rng.uniform(-0.3, 0.3, 3)
        inside = (((zyx - at[:, None, None, None]) / 0.16) ** 2).sum(0) < 1
        label[inside], image[inside] = TUMOUR, 150.0
    image = image + rng.normal(0, NOISE_HU, SHAPE)
    return image.astype(np.float32), label


def write(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING_XYZ_MM)
    sitk.WriteImage(image, str(path), True)


def main() -> None:
    args = parser().parse_args()
    is_23, out, seed = args.year == 23, args.out, 0
    for part, (images, labels, name) in LAYOUTS[args.year].items():
        for number in range(1, getattr(args, part) + 1):
            seed += 1
            rng = np.random.default_rng(seed)
            image, label = abdomen(rng, tumour=is_23 and seed % 2 == 0)
            case = name.format(number)
            write(np.rint(image).astype(np.int16), out / images / f"{case}_0000.nii.gz")
            if labels is None:
                continue
            if is_23 and part == "labelled" and number % 3:  # every third case is complete
                label[np.isin(label, [v for v in range(1, 15) if (v + number) % 3])] = 0
            write(label, out / labels / f"{case}.nii.gz")
    print(f"wrote {seed} cases of {' x '.join(map(str, SHAPE))} voxels to {out}")


if __name__ == "__main__":
    main()
