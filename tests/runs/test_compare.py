"""Comparisons of trainings, and the reasons why some are impossible."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.evaluation.values import write_values
from semi_nnunet.runs.trainings import find_jobs, list_metric_tables
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.method_names import name_method
from semi_nnunet.workflows.compare import (
    NothingToCompareError,
    compare_trainings,
    require_trained_names,
)
from tests.report.gains import values
from tests.runs.jobs import BASE, OURS, jobs_of, leave


def test_compare_names_untrained_models_and_unmatched_settings(folders, capsys, monkeypatch):
    monkeypatch.setattr("semi_nnunet.workflows.next_step.detect_device", lambda: "cpu")
    name = folders.results.name
    base, ours = jobs_of(folders)
    leave(base, epochs=2), leave(ours, epochs=3)
    options = ["-tr", "SemiMeanTecherTrainer", "-c", "2D"]
    assert main(["compare", "-d", name, "-p", "tiny", *options]) == 2
    output = capsys.readouterr().err
    assert "did you mean 'SemiMeanTeacherTrainer'?" in output and "did you mean '2d'?" in output
    missing = f"semi_nnunet crossval -d {name} -p tiny -c 2d -tr {BASE} {OURS} -f 0 --device cpu"
    for verb in (["compare"], ["report", "-o", "page.html"]):
        assert main([*verb, "-d", name, "-p", "tiny"]) == 2
        output = capsys.readouterr().err
        assert "has been measured" in output
        assert output.endswith(f"Fix: {missing}\n")
    for job, dice in ((base, 0.5), (ours, 0.6)):
        job.validation.mkdir()
        rows = "".join(f"case_{n},organ,{dice + n / 100}\n" for n in range(5))
        (job.validation / "metrics.csv").write_text(f"case,class,dice\n{rows}")
    stale = replace(ours, plans="tiny_seed1", seed=1)  # trained again by hand
    shutil.copytree(ours.folder, stale.folder)
    (stale.validation / "summary.json").touch()
    an_hour_ago = time.time() - 3600
    os.utime(stale.validation / "metrics.csv", (an_hour_ago, an_hour_ago))
    assert main(["compare", "-d", name, "-p", "tiny"]) == 0
    output = capsys.readouterr().out
    assert f"validation of {stale}" in output
    assert len(find_jobs(folders, "tiny")) == 3
    tables = list_metric_tables(find_jobs(folders, "tiny"), "validation")
    assert [seed for _, _, seed, _ in tables] == [0, 0]
    for job in (base, ours):
        (job.validation / "summary.json").touch()
        os.utime(job.validation / "metrics.csv", (an_hour_ago, an_hour_ago))
    for verb in (["compare"], ["report", "-o", "page.html"]):
        assert main([*verb, "-d", name, "-p", "tiny"]) == 2
        assert "touch the file" in capsys.readouterr().err
    assert f"{OURS} 2d and {BASE} are not matched: epochs 3 against 2 (fold 0 seed 0)" in output


@pytest.fixture
def values_file(tmp_path):
    """Write values of two methods; the second is 3 points better on all cases."""
    path = tmp_path / "kept.csv"
    rows = [*values(BASE, 0.0), *values(OURS, 0.03)]
    write_values(path, {"validation": rows, "test": rows}, "dice", ("Seven", "nnUNetPlans"))
    return path


def test_both_subsets_are_compared_and_the_best_is_chosen_on_validation_cases(values_file):
    text = compare_trainings(values=[values_file])
    validation, test = text.split("## test cases")
    assert "## validation cases" in validation and "better" in validation and "better" in test
    assert f"validation cases: {name_method(OURS)} 2d ({OURS}; dice 7" in validation
    assert "Best on" not in test  # test cases choose nothing


def test_the_written_tables_are_returned_and_the_values_can_be_read(values_file, tmp_path):
    out, again = tmp_path / "table.md", tmp_path / "again.csv"
    text = compare_trainings(values=[values_file], out=out, write_values_to=again)
    assert out.read_text() == text and again.read_text() == values_file.read_text()
    assert compare_trainings(values=[again]) == text


def test_only_the_trainers_and_configurations_asked_for_are_compared(values_file):
    with pytest.raises(UserError, match=r"trainer 'Semi\w+': .*Fix: did you"):
        compare_trainings(values=[values_file], trainers=["SemiMeanTecherTrainer"])
    with pytest.raises(UserError, match="configuration '3d': is not"):
        compare_trainings(values=[values_file], configurations=["3d"])
    text = compare_trainings(values=[values_file], trainers=[OURS], configurations=["2d"])
    assert text == compare_trainings(values=[values_file])


def test_without_a_baseline_methods_are_ranked(values_file):
    rows = [*values(OURS, 0.03), *values("SomebodysTrainer", 0.01)]
    write_values(values_file, {"test": rows}, "dice", ("Seven", "nnUNetPlans"))
    text = compare_trainings(values=[values_file])
    assert text.startswith("## test cases\n\nNot compared")
    assert text.index(name_method(OURS), text.index("|")) < text.index(
        "SomebodysTrainer", text.index("|")
    )


def test_a_single_trainer_is_kept_though_there_is_nothing_to_compare(values_file, tmp_path):
    write_values(values_file, {"test": values(OURS, 0)}, "dice", ("Seven", "nnUNetPlans"))
    with pytest.raises(UserError):
        compare_trainings(values=[values_file])
    again, out = tmp_path / "again.csv", tmp_path / "table.md"
    text = compare_trainings(values=[values_file], out=out, write_values_to=again)
    assert "Not compared: " in text and out.read_text() == text
    assert again.read_text() == values_file.read_text()  # for another machine's


def test_no_output_takes_the_place_of_an_input_or_of_the_other_one(values_file, tmp_path):
    before, new = values_file.read_bytes(), tmp_path / "new"
    for options in ({"write_values_to": values_file}, {"out": values_file},
                    {"out": new, "write_values_to": new}):  # fmt: skip
        with pytest.raises(UserError, match=r"lost|both"):
            compare_trainings(values=[values_file], trainers=[OURS], **options)
    assert values_file.read_bytes() == before and not new.exists()


def test_impossible_comparisons_are_refused_with_the_fix(values_file, tmp_path):
    with pytest.raises(UserError, match=r"nothing to compare\. Fix: -d ID, --values FILE, or both"):
        compare_trainings()
    with pytest.raises(UserError, match=r"-p chooses trainings of -d.*Fix: leave it out"):
        compare_trainings(values=[values_file], plans="others")
    content = values_file.read_text()
    with pytest.raises(UserError, match=r"kept\.csv"):
        compare_trainings(values=[values_file], out=values_file)
    with pytest.raises(UserError, match="gone"):
        compare_trainings(values=[values_file], out=tmp_path / "gone" / "table.md")
    assert values_file.read_text() == content
    values_file.write_text(content.splitlines()[0] + "\n\n")
    with pytest.raises(NothingToCompareError, match="no values"):
        compare_trainings(values=[values_file])


def test_all_unknown_names_are_reported_at_once_with_similar_ones():
    models = [(BASE, "2d"), (OURS, "3d_fullres")]
    require_trained_names(models, [BASE, OURS], ["2d", "3d_fullres"], "")
    with pytest.raises(UserError) as caught:
        require_trained_names(
            models, ["SemiBaselinTrainer", OURS], ["3d_fulres"], "was not trained"
        )
    first, second = caught.value.problems
    assert BASE in first.fix and "3d_fullres" in second.fix and first.what == "was not trained"


def test_an_empty_comparison_keeps_its_notes_and_problems():
    problem = Problem("a.csv", "is older", "touch it")
    error = NothingToCompareError(UserError("all is old:", [problem]), ["not measured yet: b.csv"])
    assert error.problems == (problem,) and error.notes == ("not measured yet: b.csv",)
    assert str(error).count("a.csv") == 1
