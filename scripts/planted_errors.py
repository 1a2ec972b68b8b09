"""Measure how many planted label errors ``semi_nnunet audit`` lists first.

    python scripts/planted_errors.py -d 504 --new-id 904 [--share 0.1] [--seed 0] [--set KEY=VALUE]
    python scripts/planted_errors.py --phantom --new-id 904

Copies a raw data set, with an error in the labels of some of its cases: classes swapped, the label
shifted, eroded or mirrored from left to right, or one slice missing. Then preprocesses it in 2d,
plans a small network (``plan --budget cpu``), cross-validates the baseline on one core, and audits
the labels. Prints for each kind of error how many are in the first 20 % of the list. The same
command continues after an interruption.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.ndimage import binary_erosion

import semi_nnunet
from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.layout import DATASET_JSON, find_raw_dataset, require_paths
from semi_nnunet.raw.readers import SPACING_APART, choose_reader, get_spacing_file
from semi_nnunet.util.files import folder_aside, read_csv, read_json, write_json
from semi_nnunet.util.messages import show_messages

PLANTED = "planted_errors.json"  # in the copy: case -> kind of its error
PLANS, TRAINER = "planted", "SemiBaselineTrainer"
SHIFT, ERODED = 0.15, 0.25  # of the extent; of the voxels, at least
FIRST = 0.2  # of the list
IN_PLANE = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool)

# ---- errors: of a label (Z, Y, X), with random numbers; None if the label cannot have them ----

Error = Callable[[np.ndarray, np.random.Generator], "np.ndarray | None"]


def swap_classes(label: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Exchange two classes."""
    values = [value for value in np.unique(label) if value > 0]
    if len(values) < 2:
        return None
    first, second = rng.choice(values, 2, replace=False)
    swapped = label.copy()
    swapped[label == first], swapped[label == second] = second, first
    return swapped


def shift_label(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move the label in its slices by 15 % of its extent or more, at least 2 voxels."""
    axis = int(rng.choice([1, 2]))
    occupied = np.flatnonzero((label > 0).any(axis=tuple({0, 1, 2} - {axis})))
    extent = occupied[-1] - occupied[0] + 1
    step = max(2, round(SHIFT * extent * rng.uniform(1, 1.5))) * int(rng.choice([-1, 1]))
    shifted = np.roll(label, step, axis)
    edge: list[slice] = [slice(None)] * 3
    edge[axis] = slice(None, step) if step > 0 else slice(step, None)
    shifted[tuple(edge)] = 0
    return shifted


def erode_label(label: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Remove the outermost voxels of each slice until a quarter of the label is gone."""
    before = mask = label > 0
    while np.count_nonzero(mask) > (1 - ERODED) * np.count_nonzero(before):
        mask = binary_erosion(mask, IN_PLANE)
    return label * mask if mask.any() else None


def empty_slice(label: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Remove the label from a slice between labelled ones."""
    slices = np.flatnonzero((label > 0).any(axis=(1, 2)))[1:-1]
    if not len(slices):
        return None
    emptied = label.copy()
    emptied[rng.choice(slices)] = 0
    return emptied


def mirror_label(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exchange left and right."""
    return label[:, :, ::-1].copy()


ERRORS: Mapping[str, Error] = {
    "swapped": swap_classes,
    "shifted": shift_label,
    "eroded": erode_label,
    "slice": empty_slice,
    "mirrored": mirror_label,
}


def plant_errors(
    source: RawDataset, target: Path, share: float, seed: int, kinds: Sequence[str] = (*ERRORS,)
) -> dict[str, str]:
    """Copy the labelled cases of a data set, with errors in a share of the labels.

    The kinds of errors take turns; a label that cannot have an error gets the next kind.

    Returns:
        Case -> kind of its error.
    """
    rng = np.random.default_rng(seed)
    cases = sorted((case for case in source.cases if case.label), key=lambda case: case.case)
    chosen = {*rng.choice(len(cases), max(1, round(share * len(cases))), replace=False).tolist()}
    planted, turn = dict[str, str](), 0
    with folder_aside(target, "nothing was copied") as folder:
        for name in ("imagesTr", "labelsTr", "imagesUn"):
            (folder / name).mkdir(parents=True)
        reader = choose_reader(source.description, [str(cases[0].label)])()
        for number, case in enumerate(cases):
            copy = folder / "labelsTr" / Path(str(case.label)).name
            files = {Path(image): folder / "imagesTr" / Path(image).name for image in case.images}
            for path, to in {**files, Path(str(case.label)): copy}.items():
                shutil.copyfile(path, to)
                sidecar = get_spacing_file(path, is_label=to == copy)
                if copy.suffix in SPACING_APART and sidecar.is_file():
                    shutil.copyfile(sidecar, to.parent / sidecar.name)
            if number not in chosen:
                continue
            array, properties = reader.read_seg(str(case.label))
            label = array[0].astype(np.uint8)
            for _ in kinds:
                kind = kinds[turn % len(kinds)]
                turn += 1
                wrong = ERRORS[kind](label, rng)
                if wrong is not None and (wrong != label).any():
                    reader.write_seg(wrong, str(copy), properties)
                    planted[case.case] = kind
                    break
        for case in [case for case in source.cases if case.subset != "labelled"][:1]:
            for image in map(Path, case.images):  # preprocess asks for an unlabelled image
                shutil.copyfile(image, folder / "imagesUn" / image.name)
        description = {**source.content, "numTraining": len(cases)}
        description.pop("dataset", None)
        write_json(folder / DATASET_JSON, description)
        write_json(folder / PLANTED, planted)
    return planted


# ---- the measurement ----


def measure_share(ranked: Sequence[str], planted: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Return kind of error -> how many of them are in the first 20 %, and how many there are.

    >>> measure_share(["a", "b", "c", "d", "e"], {"a": "shifted", "e": "shifted"})["all"]
    (1, 2)
    """
    first = {*ranked[: round(FIRST * len(ranked))]}
    counts = {}
    for kind in ("all", *ERRORS):
        cases = [case for case, error in planted.items() if kind in ("all", error)]
        counts[kind] = (len(first.intersection(cases)), len(cases))
    return {kind: count for kind, count in counts.items() if count[1]}


def average_dice(rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """Return case -> mean Dice of its classes; 1 if no class is labelled or predicted."""
    values = defaultdict[str, list[float]](list)
    for row in rows:
        values[row["case"]] += [float(row["dice"])] if row["dice"] else []
    return {case: fmean(dice) if dice else 1.0 for case, dice in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-d", dest="dataset", help="number or name of the data set to copy")
    source.add_argument("--phantom", action="store_true", help="make a phantom of 30 cases")
    parser.add_argument("--new-id", type=int, required=True, help="number of the copy")
    parser.add_argument("--share", type=float, default=0.1, help="of the cases with an error")
    parser.add_argument("--seed", type=int, default=0, help="of cases and errors")
    parser.add_argument("--set", nargs="+", default=[], dest="settings", help="as in plan --set")
    args = parser.parse_args()
    show_messages()
    require_paths()
    os.environ.update(OMP_NUM_THREADS="1", nnUNet_compile="f")
    raw_root = Path(os.environ["nnUNet_raw"])
    if args.phantom:
        folder = raw_root / f"Dataset{args.new_id - 1:03d}_PlantedSource"
        if not folder.is_dir():
            write_phantom_dataset(folder, labelled=30, unlabelled=1, test=0, shape=(10, 32, 32))
    else:
        folder = find_raw_dataset(args.dataset)
    target = raw_root / f"Dataset{args.new_id:03d}_Planted{folder.name.partition('_')[2]}"
    if not target.is_dir():
        plant_errors(RawDataset.of(folder), target, args.share, args.seed)
    planted, number = read_json(target / PLANTED), str(args.new_id)
    semi_nnunet.preprocess(number, ["2d"], processes=1)
    semi_nnunet.plan(number, budget="cpu", new_plans=PLANS, settings=args.settings)
    local = semi_nnunet.Launcher(device="cpu", jobs=1, threads=1)
    semi_nnunet.preprocess(number, ["2d"], plans=PLANS, processes=1)
    semi_nnunet.crossval(number, ["2d"], [TRAINER], plans=PLANS, stages=["train"], launcher=local)
    semi_nnunet.audit(number, plans=PLANS, out=target.parent / f"{target.name}_audit.html")
    rows = read_csv(target.parent / f"{target.name}_audit.csv")[1]
    ranked = list(dict.fromkeys(row["case"] for row in rows))
    for case, kind in planted.items():
        print(f"{case}: {kind}, place {ranked.index(case) + 1} of {len(ranked)}")
    lists = {"audit": ranked, "mean Dice alone": sorted(ranked, key=average_dice(rows).__getitem__)}
    for name, cases in lists.items():
        for kind, (found, total) in measure_share(cases, planted).items():
            print(f"{name}, {kind}: {found} of {total} in the first {FIRST:.0%}")


if __name__ == "__main__":
    main()
