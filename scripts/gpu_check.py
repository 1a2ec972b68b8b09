"""All that needs a GPU, checked and measured in one call within a limit of time.

    python scripts/gpu_check.py OUT --limit 230 [--device cuda] [--only PART ...] [--small]

PyTorch and nnU-Net are imported once; every part is a forked process with a limit of its own. First
come checks, side by side, then measurements, one at a time. What is not reached in time is said.
OUT gets ``gpu_check.tar.gz`` with all that was printed and measured, written anew after each part,
and ``summary.txt``. The exit status is 1 if a part failed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import multiprocessing
import os
import signal
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import benchmark_augmentation
import benchmark_predict
import benchmark_save
import check_ranks
import check_steps
import gpu_steps
import torch
from benchmark_step import FOLDERS, NUMBER, prepare

import semi_nnunet
from semi_nnunet.benchmarking.work import STOCK
from semi_nnunet.cli.main import main as verb
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.util.files import read_json, write_json

ENDING = 6  # seconds that packing takes at most
MOST_LINES, MOST_WIDE, MOST_SAID = 18, 230, 9500  # of what is printed
TWO, THREE = "2d", "3d_fullres"
COMPILED = ("SemiBaselineTrainer", "SemiMeanTeacherTrainer", "SemiCPSTrainer",
            "SemiDiffusionTrainer")  # fmt: skip


@dataclass
class Part:
    """Something that is run in a process of its own.

    Args:
        name: of its files.
        work: what it does; an exit status other than 0 or None, and an error, are failures.
        seconds: that it may take.
        needs: seconds that must be left for it to be worth beginning.
        environment: variables of the process.
    """

    name: str
    work: Callable[[], Any]
    seconds: float
    needs: float = 5.0
    environment: Mapping[str, str] = field(default_factory=dict)


class Runner:
    """Runs parts within a limit, and packs what they leave.

    Args:
        out: folder for the packed results.
        began: moment of time.time from which the limit counts.
        limit: seconds in all.
        only: names of the parts that are run, or their beginnings; (): all.
    """

    def __init__(self, out: Path, began: float, limit: float, only: Sequence[str]):
        self.out, self.began, self.limit, self.only = out, began, limit, only
        self.kept = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        self.results = self.kept / "results"
        self.results.mkdir()
        self.failed: list[str] = []
        self.said, self.method = 0, "fork"

    def find_method(self, device: str) -> None:
        """Start processes anew where what is forked cannot use the GPU."""
        process = self.start(Part("device", partial(uses, device), 30))
        process.join(30)
        if process.exitcode:
            self.method = "spawn"
            self.say(f"a forked process cannot use {device}; every part imports PyTorch anew")

    @property
    def passed(self) -> float:
        """Seconds since the beginning."""
        return time.time() - self.began

    @property
    def left(self) -> float:
        """Seconds until the end, but for packing."""
        return self.limit - ENDING - self.passed

    def say(self, text: str) -> None:
        """Print, no more than may be printed in all, and keep it in the summary."""
        lines = "".join(f"{line[:MOST_WIDE]}\n" for line in text.splitlines())
        with (self.out / "summary.txt").open("a", encoding="utf-8") as file:
            file.write(lines)
        lines = lines[: max(MOST_SAID - self.said, 0)]
        self.said += len(lines)
        print(lines, end="", flush=True)

    def wants(self, name: str) -> bool:
        """Whether a part was asked for."""
        return not self.only or any(name.startswith(one) for one in self.only)

    def together(self, parts: Sequence[Part], waits_for: Callable[[str], bool]) -> list[Any]:
        """Run parts side by side until all that are waited for have ended.

        Returns:
            The processes of the others.
        """
        running = [(part, self.start(part)) for part in parts]
        ends = self.passed + max([part.seconds for part in parts], default=0)
        others = [one for one in running if not waits_for(one[0].name)]
        while waited := [one for one in running if one not in others]:
            for part, process in waited:
                late = self.left < 0 or self.passed > ends
                if process.is_alive() and not late:
                    continue
                self.end(part, process)
                running.remove((part, process))
            time.sleep(0.2)
        return others

    def run(self, part: Part) -> None:
        """Run one part alone, if enough time is left."""
        if not self.wants(part.name):
            return
        if self.left < part.needs:
            self.say(f"{part.name}: SKIPPED, {max(self.left, 0):.0f} s were left")
            self.failed.append(part.name)
            return
        process = self.start(part)
        process.join(min(part.seconds, self.left))
        self.end(part, process)

    def start(self, part: Part) -> Any:
        """The process of a part."""
        file = self.results / f"{part.name}.txt"
        work = partial(in_child, part, file)
        context: Any = multiprocessing.get_context(self.method)
        process = context.Process(target=work, name=part.name)
        process.start()
        process.began = self.passed
        return process

    def end(self, part: Part, process: Any) -> None:
        """End a part that has not yet ended, tell how it went, and pack."""
        stopped = process.is_alive()
        if stopped:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.join(5)
        code, seconds = process.exitcode, self.passed - process.began
        text = (self.results / f"{part.name}.txt").read_text(encoding="utf-8", errors="replace")
        log = (self.results / f"{part.name}.log").read_text(encoding="utf-8", errors="replace")
        how = "ok" if code == 0 else f"FAILED with exit code {code}"
        self.say(f"{part.name}: {'STOPPED, it took longer' if stopped else how}, {seconds:.0f} s")
        if stopped or code:
            self.failed.append(part.name)
            end = [line for line in log.splitlines() if line.strip()][-4 if stopped else -6 :]
            self.say("\n".join(f"    {line}" for line in end))
        self.say("\n".join(shown(part.name, text)))
        self.pack()

    def pack(self) -> None:
        """Write all results into one file, whole or not at all."""
        target = self.out / "gpu_check.tar.gz"
        aside = self.kept / target.name
        with tarfile.open(aside, "w:gz", compresslevel=1) as tar:
            tar.add(self.results, "gpu_check")
            tar.add(self.out / "summary.txt", "gpu_check/summary.txt")
        beside = target.with_suffix(".part")
        beside.write_bytes(aside.read_bytes())
        beside.replace(target)


def in_child(part: Part, file: Path) -> None:
    """Do the work of a part in this process, and leave it."""
    os.setsid()
    os.environ.update(part.environment)
    for stream, where in ((1, file), (2, file.with_suffix(".log"))):
        os.dup2(os.open(where, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    code = 1
    try:
        code = part.work() or 0
    except SystemExit as left:
        print(left.code, file=sys.stderr)
        code = left.code if isinstance(left.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    for child in multiprocessing.active_children():  # what it has started ends with it
        child.kill()
    os._exit(int(code))


def shown(name: str, text: str) -> list[str]:
    """The lines of a part that are worth reading at once."""
    lines = [line for line in text.splitlines() if line.strip()]
    if name.startswith("steps_"):  # all is well: how many checks; else what is not
        wrong = [line for line in lines if ": ok" not in line]
        compiled = [line for line in lines if "compiled" in line and line not in wrong]
        short = [line.partition("uncompiled: ")[2] for line in compiled]
        return [f"    {len(lines) - len(wrong)} ok; {' '.join(short)}", *wrong[:MOST_LINES]]
    return lines[:MOST_LINES]


# ---- the parts


def uses(device: str) -> None:
    """Compute something on the device, and wait for it."""
    print(torch.ones(2, device=device).sum().item())


def phantom(root: Path, configuration: str, shape: tuple[int, int, int], how: list[str],
            batch_size: int | None) -> None:  # fmt: skip
    """Make a phantom as ``benchmark_step.prepare``, by forked processes."""
    get = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: get("fork")  # type: ignore[assignment]
    root.mkdir(parents=True)
    plans = prepare(root, configuration, shape, how)
    if batch_size is not None:
        [file] = (root / "preprocessed").glob(f"*/{plans}.json")
        content = read_json(file)
        content["configurations"][configuration]["batch_size"] = batch_size
        write_json(file, content)


def quick(root: Path, device: str) -> int:
    """``semi_nnunet benchmark --quick``."""
    work = gpu_steps.work_in(root, TWO, device)
    os.environ.update({f"nnUNet_{name}": str(root / name) for name in FOLDERS})
    os.environ["nnUNet_n_proc_DA"] = "2"
    words = ["-d", NUMBER, "-c", TWO, "-p", work.plans, "--device", device, "--rounds", "2"]
    trainers = ["-tr", STOCK, "SemiMeanTeacherTrainer"]
    return verb(["benchmark", *words, *trainers, "--quick", "--threads", "2"])


def predictions(folder: Path, device: str, limit: float, ways: Sequence[str]) -> None:
    """Predictions of an image that is made, on all cores, as a user has them."""
    os.environ.pop("OMP_NUM_THREADS", None)
    words = ["--made", str(folder), "--device", device, "--limit", f"{limit:.0f}"]
    benchmark_predict.main([*words, "--ways", *ways])


def checks_of(roots: Mapping[str, Path], device: str, trainer: str) -> int:
    """All checks of one trainer, those first that are soon done."""
    words = ["--device", device, "-tr", trainer, "--root"]
    failed = 0
    for configuration, kinds in ((TWO, ["waits", "finite"]), (THREE, ["waits", "finite"]),
                                 (TWO, ["compiled"])):  # fmt: skip
        where = [str(roots[configuration]), "-c", configuration]
        failed += check_steps.main([*words, *where, "--checks", *kinds])
    return int(failed > 0)


def known_by_pip(folder: Path) -> None:
    """Let Python know the version of a checkout that is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("semi_nnunet")
        return
    told = folder / "semi_nnunet.dist-info"
    told.mkdir(parents=True)
    about = f"Metadata-Version: 2.1\nName: semi_nnunet\nVersion: {semi_nnunet.__version__}\n"
    (told / "METADATA").write_text(about, encoding="utf-8")
    sys.path.append(str(folder))
    os.environ["PYTHONPATH"] = f"{os.environ.get('PYTHONPATH', '')}:{folder}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("out", type=Path)
    add("--device", default="cuda")
    add("--limit", type=float, default=230, help="seconds in all")
    add("--began", type=float, default=time.time(), help="in seconds of time.time")
    add("--only", nargs="*", default=[], help="parts, or how their names begin")
    add("--small", action="store_true", help="tiny sizes, to try this script")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "summary.txt").unlink(missing_ok=True)
    torch.set_num_threads(1)
    runner = Runner(args.out, args.began, args.limit, args.only)
    known_by_pip(runner.kept / "known")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(runner.kept / "inductor"))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "3")
    runner.say(f"torch {torch.__version__} on {args.device}, imported after {runner.passed:.0f} s")
    runner.find_method(args.device)
    everything(runner, args.device, args.small)
    if runner.failed:
        runner.say(f"not ok: {', '.join(runner.failed)}")
    runner.say(f"{runner.passed:.0f} s in all")
    runner.pack()
    return int(bool(runner.failed))


def everything(runner: Runner, device: str, small: bool) -> None:
    """The parts in order of importance."""
    made, results = runner.kept / "made", runner.results
    roots = {TWO: made / "2d", THREE: made / "3d"}
    full_2d, full_3d, ct = made / "full_2d", made / "full_3d", made / "ct"
    cpu = ["--budget", "cpu"]
    tiny = (16, 48, 48)
    phantoms = [
        Part("make_2d", partial(phantom, roots[TWO], TWO, tiny, cpu, None), 60),
        Part("make_3d", partial(phantom, roots[THREE], THREE, tiny, cpu, None), 60),
        Part("make_full_2d", partial(
            phantom, full_2d, TWO, tiny if small else (8, 256, 256), cpu if small else [],
            2 if small else 12), 60),
        Part("make_full_3d", partial(
            phantom, full_3d, THREE, tiny if small else (80, 112, 112),
            cpu if small else ["--patch", "80", "112", "112"], 2), 60),
    ]  # fmt: skip
    size = ["20", "40", "40"] if small else ["200", "512", "512"]
    patch = ["16", "32", "32"] if small else ["64", "96", "96"]
    making = ["--make", str(ct), "--size", *size, "--patch", *patch, "--features",
              "4" if small else "32"]  # fmt: skip
    phantoms.append(Part("make_ct", partial(benchmark_predict.main, making), 60))
    slow = 10.0 if small or device == "cpu" else 1.0  # that machine is not this one
    for part in phantoms:
        part.seconds *= slow
    runner.together(phantoms, lambda name: True)
    first = [
        Part(f"steps_{name}", partial(checks_of, roots, device, name), 75 * slow)
        for name in our_trainers() if runner.wants("steps")
    ]  # fmt: skip
    if runner.wants("ranks"):
        words = [str(roots[TWO]), "--device", device]
        first.append(Part("ranks", partial(check_ranks.main, words), 75 * slow))
    if runner.wants("quick"):
        first.append(Part("quick", partial(quick, roots[TWO], device), 75 * slow))
    counted = {TWO: results / "operations_2d.json", THREE: results / "operations_3d.json"}
    for configuration, root in ((TWO, full_2d), (THREE, full_3d)):
        name = f"operations_{configuration[:2]}"
        if runner.wants(f"timing_{configuration[:2]}"):
            words = [str(root), configuration, "--operations", str(counted[configuration])]
            first.append(Part(name, partial(gpu_steps.main, words), 75 * slow))
    if runner.wants("compiled") and device != "cpu":  # for the compiler's cache
        for name in COMPILED:
            words = [str(full_3d), THREE, "--device", device, "--compiled", "--seconds", "1"]
            work = partial(gpu_steps.main, [*words, "-tr", name])
            first.append(Part(f"compile_{name}", work, 75 * slow))
    nnunet = benchmark_predict.NNUNET
    if runner.wants("predict"):
        work = partial(predictions, ct, device, runner.left, [nnunet])
        first.append(Part("predict_nnunet", work, runner.left))
    background = runner.together(first, lambda name: name != "predict_nnunet")
    for configuration, root, seconds in ((THREE, full_3d, 45), (TWO, full_2d, 25)):
        name = f"timing_{configuration[:2]}"
        words = [str(root), configuration, "--device", device, "--seconds", f"{0.75 * seconds}"]
        words += ["--counted", str(counted[configuration]), "-o", str(results / f"{name}.json")]
        runner.run(Part(name, partial(gpu_steps.main, words), seconds * slow, 15))
    for edge in ("16", "20") if small else ("64", "128"):
        words = ["--device", device, "--patch", edge, edge, edge, "--batch-size", "2", "--all"]
        words += ["--rounds", "2", "--batches", "2"]
        work = partial(benchmark_augmentation.main, words)
        runner.run(Part(f"augmentation_{edge}", work, 20 * slow))
    ways = [way for way in benchmark_predict.WAYS if way != nnunet]
    for part, process in background:  # it may still have memory of the GPU
        runner.end(part, process)
    work = partial(predictions, ct, device, 30 * slow, [ways[1], ways[2], ways[0]])
    runner.run(Part("predict", work, 60 * slow, 15))
    words = [str(full_3d), THREE, "--device", device, "--compiled", "--seconds", "30"]
    words += ["-o", str(results / "compiled_3d.json"), "-tr", STOCK, *COMPILED]
    if device != "cpu":
        runner.run(Part("compiled_3d", partial(gpu_steps.main, words), 45, 20))
    runner.run(Part("save", partial(benchmark_save.main, ["--device", device]), 20 * slow))


if __name__ == "__main__":
    sys.exit(main())
