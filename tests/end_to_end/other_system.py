"""Let this package believe that it runs on Windows, then train, predict and measure.

Its modules see an ``os``, ``signal``, ``sys`` and so on without the names that only POSIX has; the
libraries that it uses see the real ones.
"""

from __future__ import annotations

import builtins
import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.test_portability import MODULES, NAMES


def pretend_windows() -> None:
    """Replace the modules that this package imports from now on."""
    without = {name: _copy_without(name, hidden) for name, hidden in NAMES.items()}
    without["os"].name = "nt"  # type: ignore[attr-defined]
    without["sys"] = _copy_without("sys", set())
    without["sys"].platform = "win32"  # type: ignore[attr-defined]
    real_import = builtins.__import__

    def limited_import(name: str, scope: Any = None, *others: Any, **options: Any) -> Any:
        if str((scope or {}).get("__name__", "")).startswith("semi_nnunet"):
            if name in MODULES:
                raise ModuleNotFoundError(f"No module named {name!r}")
            if name in without:
                return without[name]
        return real_import(name, scope, *others, **options)

    builtins.__import__ = limited_import


def _copy_without(name: str, hidden: set[str]) -> ModuleType:
    copy, original = ModuleType(name), importlib.import_module(name)
    names = (key for key in dir(original) if key not in hidden)
    copy.__dict__.update({key: getattr(original, key) for key in names})
    return copy


def import_everything() -> None:
    """Import every module of the package."""
    import semi_nnunet

    for module in pkgutil.walk_packages(semi_nnunet.__path__, "semi_nnunet."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def main(raw: Path) -> None:
    """Preprocess, train, predict and evaluate a phantom in this process."""
    pretend_windows()
    import_everything()
    from semi_nnunet.cli.main import main as run
    from semi_nnunet.datasets.phantom import write_phantom_dataset

    write_phantom_dataset(
        raw / "Dataset901_Phantom", labelled=4, unlabelled=4, test=2, shape=(6, 32, 32)
    )
    data = raw / "Dataset901_Phantom"
    settings = ["epochs=1", "steps_per_epoch=2", "validation_steps_per_epoch=1"]
    commands = (
        "preprocess -d 901 -c 2d -np 1",
        "plan -d 901 -c 2d --budget cpu --patch 32 32 --new-plans tiny --set",
        "train 901 2d 0 -tr SemiMeanTeacherTrainer -p tiny -device cpu",
        f"predict -d 901 -p tiny -c 2d -f 0 -tr SemiMeanTeacherTrainer -i {data / 'imagesTs'} "
        "-o predicted --device cpu",
        f"evaluate -i predicted -r {data / 'labelsTs'} -np 1",
        "status -d 901 -p tiny",
    )
    for command in commands:
        words = command.split() + (settings if command.endswith("--set") else [])
        if run(words) != 0:
            sys.exit(f"failed: semi_nnunet {command}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
