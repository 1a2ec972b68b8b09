"""Run all checks and measurements that need a GPU in one call with a time limit.

    python scripts/gpu_check.py OUT --limit 230 [--device cuda] [--only PART ...] [--small]

PyTorch and nnU-Net are imported once; every part is a forked process with its own limit. Checks run
first, several at a time, then measurements, one at a time. Parts that are not reached are listed.
OUT gets ``gpu_check.tar.gz`` with all output and measurements, rewritten after each part, and
``summary.txt``. Exits with 1 if a part failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import benchmark_augmentation
import benchmark_predict
import benchmark_save
import benchmark_variants
import check_ranks
import check_steps
import gpu_steps
import torch
from benchmark_step import FOLDERS, NUMBER, prepare
from limited_parts import Part, Runner, make_known

from semi_nnunet.benchmarking.work import STOCK
from semi_nnunet.cli.main import main as verb
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.util.files import read_json, write_json

DONE = "done"  # a file in a folder that is made
TWO, THREE = "2d", "3d_fullres"
COMPILED = ("SemiBaselineTrainer", "SemiMeanTeacherTrainer", "SemiCPSTrainer",
            "SemiDiffusionTrainer")  # fmt: skip

Phantom: TypeAlias = tuple[tuple[int, int, int], list[str], int | None]  # shape, plan, batch size


def phantom(root: Path, configuration: str, shape: tuple[int, int, int], how: list[str],
            batch_size: int | None) -> None:  # fmt: skip
    """Make a phantom with ``benchmark_step.prepare`` in forked processes, if it does not exist."""
    if (root / DONE).exists():
        return
    get = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: get("fork")  # type: ignore[assignment]
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    plans = prepare(root, configuration, shape, how, unlabelled=4)
    if batch_size is not None:
        [file] = (root / "preprocessed").glob(f"*/{plans}.json")
        content = read_json(file)
        content["configurations"][configuration]["batch_size"] = batch_size
        write_json(file, content)
    (root / DONE).touch()


def image_and_model(folder: Path, sizes: list[str]) -> None:
    """Make the image and the model of the predictions, if they do not exist."""
    if not (folder / DONE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        benchmark_predict.main(["--make", str(folder), *sizes])
        (folder / DONE).touch()


def quick(root: Path, device: str) -> int:
    """``semi_nnunet benchmark --quick``."""
    work = gpu_steps.work_in(root, TWO, device)
    os.environ.update({f"nnUNet_{name}": str(root / name) for name in FOLDERS})
    os.environ["nnUNet_n_proc_DA"] = "2"
    words = ["-d", NUMBER, "-c", TWO, "-p", work.plans, "--device", device, "--steps", "2"]
    trainers = ["-tr", STOCK, "SemiMeanTeacherTrainer"]
    return verb(["benchmark", *words, *trainers, "--quick", "--threads", "2"])


def predictions(folder: Path, device: str, limit: float, ways: Sequence[str]) -> None:
    """Predict a synthetic image on all cores, as a user would."""
    os.environ.pop("OMP_NUM_THREADS", None)
    words = ["--made", str(folder), "--device", device, "--limit", f"{limit:.0f}"]
    benchmark_predict.main([*words, "--ways", *ways])


def checks_of(roots: Mapping[str, Path], device: str, trainer: str) -> int:
    """Return all checks of one trainer, the short ones first."""
    words = ["--device", device, "-tr", trainer, "--root"]
    failed = 0
    for configuration, kinds in ((TWO, ["waits", "finite"]), (THREE, ["waits", "finite"]),
                                 (TWO, ["compiled"])):  # fmt: skip
        where = [str(roots[configuration]), "-c", configuration]
        failed += check_steps.main([*words, *where, "--checks", *kinds])
    return int(failed > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("out", type=Path)
    add("--device", default="cuda")
    add("--limit", type=float, default=230, help="seconds in all")
    add("--began", type=float, default=time.time(), help="in seconds of time.time")
    add("--only", nargs="*", default=[], help="parts, or how their names begin")
    add("--made", type=Path, help="folder for phantoms, kept for the next call")
    add("--small", action="store_true", help="tiny sizes, to try this script")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "summary.txt").unlink(missing_ok=True)
    torch.set_num_threads(1)
    runner = Runner(args.out, args.began, args.limit, args.only)
    made = args.made or Path(tempfile.gettempdir()) / f"gpu_check{'_small' * args.small}"
    make_known(runner.kept / "known")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(made / "inductor"))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "3")
    runner.say(f"torch {torch.__version__} on {args.device}, imported after {runner.passed:.0f} s")
    runner.find_method(args.device)
    everything(runner, made, args.device, args.small)
    if runner.failed:
        runner.say(f"not ok: {', '.join(runner.failed)}")
    runner.say(f"{runner.passed:.0f} s in all")
    runner.pack()
    return int(bool(runner.failed))


def everything(runner: Runner, made: Path, device: str, small: bool) -> None:
    """Return the parts in order of importance; phantoms are in ``made``."""
    results = runner.results
    roots = {TWO: made / "2d", THREE: made / "3d"}
    full = {TWO: made / "full_2d", THREE: made / "full_3d"}
    ct = made / "ct"
    size = ["20", "40", "40"] if small else ["200", "512", "512"]
    patch = ["16", "32", "32"] if small else ["64", "96", "96"]
    features = "4" if small else "32"
    making = ["--size", *size, "--patch", *patch, "--features", features]
    tiny: Phantom = ((16, 48, 48), ["--budget", "cpu"], None)
    flat: Phantom = tiny if small else ((8, 256, 256), [], 12)
    deep: Phantom = tiny if small else ((80, 112, 112), ["--patch", "80", "112", "112"], 2)
    checks = ("steps", "ranks", "quick")
    needed = [  # by which parts
        (checks, Part("make_2d", partial(phantom, roots[TWO], TWO, *tiny), 60)),
        (checks[:1], Part("make_3d", partial(phantom, roots[THREE], THREE, *tiny), 60)),
        (("timing_2d",), Part("make_full_2d", partial(phantom, full[TWO], TWO, *flat), 60)),
        (("timing_3d", "compile"),
         Part("make_full_3d", partial(phantom, full[THREE], THREE, *deep), 60)),
        (("predict",), Part("make_ct", partial(image_and_model, ct, making), 60)),
    ]  # fmt: skip
    phantoms = [part for names, part in needed if any(map(runner.wants, names))]
    slow = 10.0 if small or device == "cpu" else 1.0  # that machine is not this one
    for part in phantoms:
        part.seconds *= slow
    runner.together(phantoms, lambda name: True)
    first = [
        Part(f"steps_{name}", partial(checks_of, roots, device, name), 75 * slow)
        for name in our_trainers() if runner.wants(f"steps_{name}")
    ]  # fmt: skip
    if runner.wants("ranks"):
        words = [str(roots[TWO]), "--device", device]
        first.append(Part("ranks", partial(check_ranks.main, words), 75 * slow))
    if runner.wants("quick"):
        first.append(Part("quick", partial(quick, roots[TWO], device), 75 * slow))
    counted = {TWO: results / "operations_2d.json", THREE: results / "operations_3d.json"}
    for configuration, root in full.items():
        name = f"operations_{configuration[:2]}"
        if runner.wants(f"timing_{configuration[:2]}"):
            words = [str(root), configuration, "--operations", str(counted[configuration])]
            first.append(Part(name, partial(gpu_steps.main, words), 75 * slow))
    if runner.wants("compile") and device != "cpu":  # for the compiler's cache
        for name in COMPILED:
            words = [str(full[THREE]), THREE, "--device", device, "--compiled", "--seconds", "1"]
            work = partial(gpu_steps.main, [*words, "-tr", name])
            first.append(Part(f"compile_{name}", work, 75 * slow))
    nnunet = benchmark_predict.NNUNET
    if runner.wants("predict"):
        work = partial(predictions, ct, device, runner.left, [nnunet])
        first.append(Part("predict_nnunet", work, runner.left))
    background = runner.together(first, lambda name: name != "predict_nnunet")
    for configuration, seconds in ((THREE, 45), (TWO, 25)):
        name = f"timing_{configuration[:2]}"
        words = [str(full[configuration]), configuration, "--device", device]
        words += ["--seconds", f"{0.75 * seconds * slow}"]
        words += ["--counted", str(counted[configuration]), "-o", str(results / f"{name}.json")]
        runner.run(Part(name, partial(gpu_steps.main, words), seconds * slow, 15))
    for edge in ("16", "20") if small else ("64", "128"):
        words = ["--device", device, "--patch", edge, edge, edge, "--batch-size", "2", "--all"]
        words += ["--steps", "2", "--batches", "2"]
        work = partial(benchmark_augmentation.main, words)
        runner.run(Part(f"augmentation_{edge}", work, 20 * slow))
    ways = [way for way in benchmark_predict.WAYS if way != nnunet]
    for part, process in background:  # it has memory of the GPU
        process.join(max(runner.left - 70 * slow, 0))
        runner.end(part, process)
    work = partial(predictions, ct, device, 30 * slow, [ways[1], ways[2], ways[0]])
    runner.run(Part("predict", work, 60 * slow, 15))
    words = [str(full[THREE]), THREE, "--device", device, "--compiled", "--seconds", "30"]
    words += ["-o", str(results / "compiled_3d.json"), "-tr", STOCK, *COMPILED]
    if device != "cpu":
        runner.run(Part("compiled_3d", partial(gpu_steps.main, words), 45, 20))
    runner.run(Part("save", partial(benchmark_save.main, ["--device", device]), 20 * slow))
    for edges, count in ((("32", "32", "32"), "1"), (("64", "64"), "2")) if small else (
        (("80", "112", "112"), "2"), (("256", "256"), "12")
    ):  # fmt: skip
        words = ["--device", device, "--patch", *edges, "--batch-size", count]
        work = partial(benchmark_variants.main, words)
        runner.run(Part(f"variants_{len(edges)}d", work, 20 * slow))


if __name__ == "__main__":
    sys.exit(main())
