"""A data set is prepared once, and a large imagesUn in shards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk

import semi_nnunet.workflows.prepare as module
from semi_nnunet.preprocessing.shards import UnlabelledPreprocessing
from semi_nnunet.raw.layout import get_preprocessed_dataset
from semi_nnunet.runs.launching import JobWork, run_work
from semi_nnunet.util.errors import UserError
from semi_nnunet.verbs.options import Launcher
from semi_nnunet.verbs.preprocess import preprocess
from semi_nnunet.workflows.prepare import list_shards, preprocess_shard
from tests.conftest import no_processes
from tests.runs.parsing import parse_command


@pytest.fixture
def dataset(prepared_dataset, tmp_path, monkeypatch) -> str:
    """The phantom, raw and preprocessed, in folders of the test's own."""
    source = prepared_dataset("labels", 1)
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        shutil.copytree(getattr(source, name), tmp_path / name / source.name)
    return str(source.name)


CONFIGURATIONS = ["2d", "3d_fullres"]


def test_prepared_cases_are_counted_and_not_prepared_again(dataset, tmp_path):
    earlier = times(tmp_path)
    with no_processes():
        ready = preprocess(dataset, CONFIGURATIONS, processes=1)
    assert ready is not None and ready.plans == "nnUNetPlans"
    assert ready.counts == dict.fromkeys(CONFIGURATIONS, (5, 4)) and times(tmp_path) == earlier
    with no_processes():
        assert preprocess(dataset, CONFIGURATIONS, processes=1, shards=3) == ready
    assert times(tmp_path) == earlier


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.b2nd")}


def test_the_shards_of_every_configuration_are_numbered_in_a_row(dataset):
    shards = list_shards(dataset, "nnUNetPlans", CONFIGURATIONS, 3, 2)
    assert [(shard.work.configuration, shard.number) for shard in shards] == [
        (name, number) for name in CONFIGURATIONS for number in range(3)
    ]
    assert len({shard.log for shard in shards}) == len({shard.lock for shard in shards}) == 6


def test_only_shards_with_missing_cases_are_left(dataset, monkeypatch):
    def list_work(processes: int) -> JobWork:
        recorded: list[JobWork] = []
        monkeypatch.setattr(module, run_work.__name__, lambda _, work: not recorded.append(work))
        with no_processes():
            assert preprocess(dataset, CONFIGURATIONS, processes=processes, shards=3)
        return recorded[0]

    assert list_work(1).unfinished == []
    pool = UnlabelledPreprocessing(get_preprocessed_dataset(dataset), "nnUNetPlans", "3d_fullres")
    lost = min(pool.folder.glob("*.b2nd"))
    lost.unlink()
    work = list_work(1)
    (index,) = work.unfinished
    shard = work.jobs[index]
    assert shard.work.folder == pool.folder and lost.stem in shard.cases()
    assert [shard.is_done for shard in work.jobs] == [number != index for number in range(6)]
    parsed = parse_command([*map(str, work.command)])  # of a cluster's process
    again = list_shards(
        parsed.dataset, parsed.plans, parsed.configurations, parsed.shards, parsed.processes
    )
    assert again == list(work.jobs)
    with no_processes():
        preprocess_shard(shard, 1)
    assert shard.is_done and lost.is_file()
    assert list_work(1).unfinished == []


def test_the_memory_of_this_machine_matters_only_where_it_does_the_work(dataset, monkeypatch):
    monkeypatch.setattr("semi_nnunet.preprocessing.prepare.memory_bytes", lambda: 1000)
    with no_processes(), pytest.raises(UserError, match="resampling 4 unlabelled images"):
        preprocess(dataset, ["2d"], processes=1)
    with no_processes(), pytest.raises(UserError, match="resampling 4 unlabelled images"):
        preprocess(dataset, ["2d"], processes=1, shards=2)
    monkeypatch.setattr(module, run_work.__name__, lambda launcher, work: False)
    with no_processes():
        assert preprocess(dataset, ["2d"], processes=1, launcher=Launcher("slurm")) is None


def test_outliers_are_skipped_in_shards_too(dataset, tmp_path, capsys):
    case = min((tmp_path / "raw" / dataset / "imagesUn").iterdir())
    image = sitk.ReadImage(str(case))
    image.SetSpacing((0.05, 0.05, 40))
    sitk.WriteImage(image, str(case))
    with no_processes():
        launcher = Launcher(jobs=1)
        assert preprocess(dataset, ["2d"], processes=1, skip_outliers=True, launcher=launcher)
    out = capsys.readouterr().out
    assert "skipped 1 of 4 unlabelled images" in out and "3 unlabelled cases, " in out


def test_numbers_that_are_too_small_are_refused_before_anything_is_read():
    for options, option in (({"shards": 0}, "--shards"), ({"processes": -1}, "-np")):
        with pytest.raises(UserError, match=f"{option} must be 1 or more, got"):
            preprocess("no such data set", **options)


def test_a_launcher_says_how_many_shards_there_are(dataset, capsys):
    with no_processes():
        assert preprocess(dataset, ["2d"], processes=1, launcher=Launcher(jobs=2))
    assert "4 unlabelled cases, 0 shards to do" in capsys.readouterr().out
