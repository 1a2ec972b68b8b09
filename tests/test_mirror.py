"""Tests mirror the package: semi_nnunet/PACKAGE/NAME.py has tests/PACKAGE/test_NAME.py."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "semi_nnunet"
HELD_ELSEWHERE = {  # source, or folder of sources -> what tests it
    "cli": "cli/test_main.py",  # every verb is a thin shell over a function with tests of its own
    "discovery/trainers/semi_nnunet_trainers.py": "discovery/test_register.py",
    "settings/teacher.py": "training/test_teacher.py",
    "training/cascade.py": "laws/test_cascade.py",
    "training/networks_in_training.py": "training/test_companions.py",  # a Protocol
}
OF_NO_SINGLE_SOURCE = {  # folders whose tests are of the whole
    "end_to_end",
    "laws",
}
OF_SEVERAL_SOURCES = {
    "pseudo_labels/test_select_hostile.py",  # the verb and the page that it writes
    "report/test_report_browser.py",  # the page, in a browser
    "runs/test_crossval_cascade.py",  # both stages in one command
    "runs/test_real_slurm.py",  # on a machine with SLURM
}


def sources() -> list[str]:
    found = (path.relative_to(SOURCES) for path in SOURCES.rglob("*.py"))
    return sorted(str(path) for path in found if not path.name.startswith("__"))


def mirror_of(source: str) -> str:
    """The test file of a source, both relative to their folders."""
    for held, test in HELD_ELSEWHERE.items():
        if source == held or source.startswith(f"{held}/"):
            return test
    path = Path(source)
    return str(path.with_name(f"test_{path.name}"))


def test_every_source_has_a_test_file_of_its_name() -> None:
    missing = [source for source in sources() if not (TESTS / mirror_of(source)).is_file()]
    assert not missing, f"these sources have no tests/PACKAGE/test_NAME.py: {missing}"


def test_every_test_file_is_of_a_source() -> None:
    wanted = {*map(mirror_of, sources()), *OF_SEVERAL_SOURCES}
    found = {str(path.relative_to(TESTS)) for path in TESTS.rglob("*/test_*.py")}
    strangers = {name for name in found - wanted if name.split("/")[0] not in OF_NO_SINGLE_SOURCE}
    assert not strangers, f"these test files are named after no source: {sorted(strangers)}"
