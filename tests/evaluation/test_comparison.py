"""Paired comparison of trainings."""

import math
from dataclasses import replace

import numpy as np
import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.evaluation.comparison import (
    NOT_JUDGED,
    compare_with_baseline,
    describe_patients,
    describe_seeds,
    describe_shared_seeds,
    describe_steps,
    find_unranked_models,
    format_class_table,
    format_overall_table,
    rank_comparisons,
    rank_models,
)
from semi_nnunet.evaluation.statistics import holm, paired_difference
from semi_nnunet.evaluation.values import Model, Value, credit_absence, read_values, write_values
from semi_nnunet.util.errors import UserError
from tests.evaluation.measured import BASE, ORIGIN, OTHER, OURS, values, write_table


def test_a_gain_in_every_case_is_found_and_noise_is_not():
    ours, other = compare_with_baseline(
        [*values(BASE, 0), *values(OURS, 0.02), *values(OTHER, 0)], "Base", "dice"
    )
    assert ours.model == OURS and ours.verdict("dice") == "better"
    assert ours.overall.mean == pytest.approx(0.02, abs=0.005)
    assert ours.overall.low < 0.02 < ours.overall.high
    assert other.verdict("dice").startswith("no evidence")
    assert set(ours.seeds) == {0, 1} and set(ours.classes) == {"liver", "tumour"}
    worse = compare_with_baseline([*values(BASE, 0.02), *values(OURS, 0)], "Base", "dice")[0]
    assert worse.verdict("dice") == "WORSE" and "WORSE" in format_overall_table([worse], "dice")
    assert worse.verdict("hd95_edge_mm") == "better"
    (ours,) = compare_with_baseline([*values(BASE, 0), *values(OURS, 0.02)], "Base", "dice")
    for table in (format_overall_table([ours], "dice"), format_class_table([ours], "dice")):
        assert "| < 0.001" in table and "0.000" not in table


def test_p_values_of_classes_are_corrected_for_all_models_and_classes():
    names = [f"Ours{i}" for i in range(6)]
    rows = [*values(BASE, 0), *(v for name in names for v in values(Model(name, "2d"), 0.0022))]
    liver = [v for v in rows if v.name == "liver"]
    for item in compare_with_baseline(liver, "Base", "dice"):
        difference, p = item.classes["liver"]  # a single class is the same as all classes
        assert difference == item.overall and p == item.p_holm
    compared = compare_with_baseline(rows, "Base", "dice")
    raw = [d.p for item in compared for d, _ in item.classes.values()]
    assert [p for item in compared for _, p in item.classes.values()] == pytest.approx(holm(raw))
    assert max(holm(raw)) > max(raw)


def test_the_difference_of_a_case_is_its_mean_over_classes_and_seeds():
    rows = [*values(BASE, 0, noise=0.05), *values(OURS, 0.01, noise=0.05)]
    (compared,) = compare_with_baseline(rows, "Base", "dice")
    by_case = {}
    for case in sorted({row.case for row in rows}):
        means = [
            np.mean([row.value for row in rows if row.case == case and row.model == model])
            for model in (OURS, BASE)
        ]
        by_case[case] = means[0] - means[1]
    expected = paired_difference(list(by_case.values()))
    assert compared.overall.mean == pytest.approx(expected.mean)
    assert compared.overall.p == pytest.approx(expected.p)
    assert compared.mean - compared.baseline_mean == pytest.approx(expected.mean)


def test_a_seed_that_loses_is_not_outvoted_by_the_number_of_cases():
    rows = [*values(BASE, 0, seeds=3, noise=0), *values(OURS, 0.02, seeds=2, noise=0)]
    third = [v for v in values(OURS, -0.01, seeds=3, noise=0) if v.seed == 2]
    (agreed,) = compare_with_baseline([row for row in rows if row.seed < 2], "Base", "dice")
    assert agreed.verdict("dice") == "better"
    (compared,) = compare_with_baseline([*rows, *third], "Base", "dice")
    assert compared.p_holm < 0.05 and compared.overall.mean == pytest.approx(0.01)
    assert compared.overall.low == pytest.approx(-0.01)
    reasoned = compared.reasoned_verdict("dice")
    assert "interval contains 0" in reasoned and "seeds disagree" in reasoned
    assert reasoned in format_overall_table([compared], "dice")
    assert compared.verdict("dice").startswith("no evidence")
    assert agreed.reasoned_verdict("dice") == "better"
    assert compared.classes["liver"][0].low == pytest.approx(-0.01)


def test_chance_in_training_is_shown_or_named_as_unknown():
    one_seed = values(BASE, 0, seeds=1, noise=0)
    assert "Base 2d has one seed" in describe_seeds(
        [*one_seed, *values(OURS, 0, seeds=3)], "Base", "dice"
    )
    lucky = [Value(BASE, "0", 1, "case00", name, 0.9) for name in ("liver", "tumour")]
    # 0.7 + 0.01 * case, twelve cases
    assert describe_seeds([*one_seed, *lucky], "Base", "dice") == "Base 2d by seed: 75.50, 90.00."


def test_only_folds_and_seeds_of_both_models_are_compared():
    rows = [*values(BASE, 0, seeds=1, noise=0), *values(OURS, 0.01, seeds=3, noise=0)]
    (compared,) = compare_with_baseline(rows, "Base", "dice")
    assert set(compared.seeds) == {0} and compared.overall.cases == 12
    apart = [replace(v, seed=v.seed + 5) for v in values(BASE, 0)]
    with pytest.raises(UserError, match="in common"):
        compare_with_baseline([*values(OURS, 0), *apart], "Base", "dice")
    with pytest.raises(UserError, match=r"only .*Base .*2d 75\.50") as caught:
        compare_with_baseline(values(BASE, 0, noise=0), "Base", "dice")
    assert "train" in caught.value.fix
    with pytest.raises(UserError, match=r"Base was not.*only Ours"):
        compare_with_baseline(values(OURS, 0), "Base", "dice")


def test_a_class_that_a_case_does_not_show_is_left_out_of_this_case():
    rows = [*values(BASE, 0, noise=0), *values(OURS, 0.02, noise=0)]
    rows = [
        row if row.name == "liver" or row.case != "case00" else replace(row, value=math.nan)
        for row in rows
    ]
    (compared,) = compare_with_baseline(rows, "Base", "dice")
    assert compared.overall.mean == pytest.approx(0.02)
    assert compared.classes["tumour"][0].cases == 11 and compared.classes["liver"][0].cases == 12


@pytest.mark.parametrize(
    ("metric", "good", "worst"), [("dice", 0.8, 0.0), ("hd95_edge_mm", 2.0, 60.0)]
)
def test_a_training_that_invents_a_class_is_worse_than_one_that_predicts_nothing(
    tmp_path, metric, good, worst
):
    """Ours is a little better in eight cases, and invents the class in twelve others."""
    better = good + (0.01 if metric == "dice" else -0.1)
    rows = {
        BASE: [*[good] * 8, *[math.nan] * 12],
        OURS: [*[better] * 8, *[worst] * 12],
    }
    tables = []
    for model, numbers in rows.items():
        path = tmp_path / model.trainer / "metrics.csv"
        class_values = [
            Value(model, "0", 0, f"case{i:02}", "fluid", x) for i, x in enumerate(numbers)
        ]
        # no training predicts a second class, and no case has it: it stays undefined
        write_table(
            path,
            [*class_values, *(replace(v, name="drusen", value=math.nan) for v in class_values)],
            metric,
        )
        tables.append((model, "0", 0, path))
    credited, _ = read_values(tables, metric)
    assert sum(math.isnan(value.value) for value in credited) == 52
    credited = credit_absence(credited, metric)
    assert sum(math.isnan(value.value) for value in credited) == 40
    (compared,) = compare_with_baseline(credited, "Base", metric)
    assert compared.overall.cases == 20 and compared.verdict(metric) == "WORSE"
    perfect = 1.0 if metric == "dice" else 0.0
    assert compared.baseline_mean == pytest.approx(0.4 * good + 0.6 * perfect)
    assert [model for model, _ in rank_models(credited, metric)] == [BASE, OURS]


def test_models_are_ranked_on_the_cases_that_all_of_them_predicted():
    rows = [*values(BASE, 0, noise=0), *values(OURS, 0.01, noise=0)]
    extra = [Value(BASE, "9", 0, "easy", "liver", 1.0)]
    assert [model for model, _ in rank_models([*rows, *extra], "dice")] == [OURS, BASE]
    assert [model for model, _ in rank_models([*rows, *extra], "hd95_edge_mm")] == [BASE, OURS]
    assert rank_models([*values(BASE, 0), Value(OURS, "9", 9, "x", "y", 1.0)], "dice") == []


def test_a_lucky_seed_is_not_ranked_above_three():
    """The baseline's first seed is its worst: over it alone, one seed gains more than three."""
    rows = [*values(BASE, 0, seeds=3, noise=0), *values(OURS, 0.02, seeds=3, noise=0)]
    rows = [replace(v, value=v.value - 0.03) if (v.model, v.seed) == (BASE, 0) else v for v in rows]
    rows += values(OTHER, 0.01, seeds=1, noise=0)
    compared = compare_with_baseline(rows, "Base", "dice")
    best, lucky = rank_comparisons(compared, "dice")
    assert lucky.overall.mean > best.overall.mean
    assert (best.model, lucky.model) == (OURS, OTHER)
    assert [model for model, _ in rank_models(rows, "dice")] == [OURS, BASE]
    assert find_unranked_models(rows, rank_models(rows, "dice")) == [OTHER]
    table = format_overall_table(compared, "dice")
    assert table.index("Ours") < table.index("Other") and "seed 0 only" in table
    assert "Other" in describe_shared_seeds(compared)


def test_few_steps_give_no_verdict():
    rows = [*values(BASE, 0), *values(OURS, -0.02)]
    for steps in ({OURS: 30, BASE: 600}, {OURS: 600, BASE: 30}):
        (item,) = compare_with_baseline(rows, "Base", "dice", steps)
        assert item.steps == 30 and item.verdict("dice") == NOT_JUDGED
        assert item.class_verdict("liver", "dice") == NOT_JUDGED
        table = format_overall_table([item], "dice")
        assert "WORSE" not in table and "| 30 " in table
        assert "30" in describe_steps([item])
    (item,) = compare_with_baseline(rows, "Base", "dice", {OURS: 600, BASE: 600})
    assert item.verdict("dice") == "WORSE" and describe_steps([item]) == ""


def test_a_training_without_common_folds_is_left_out_of_the_ranking():
    """A crossval is running: a third trainer has finished a fold that no other trainer has yet."""
    rows = [*values(BASE, 0, noise=0, folds=2), *values(OURS, 0.01, noise=0, folds=2)]
    stray = replace(values(OTHER, 0.2, seeds=1)[0], fold="2", case="case20")
    ranked = rank_models([*rows, stray], "dice")
    assert [model for model, _ in ranked] == [OURS, BASE]
    assert (
        find_unranked_models([*rows, stray], ranked) == [OTHER]
        and find_unranked_models(rows, ranked) == []
    )


def test_configurations_are_compared_without_a_baseline(tmp_path, capsys):
    path, larger = tmp_path / "values.csv", Model("Ours", "3d")
    rows = [*values(OURS, 0.01, noise=0), *values(larger, 0.03, noise=0)]
    write_values(path, {"validation": rows, "test": rows}, "dice", ORIGIN)
    assert main(["compare", "--values", str(path)]) == 0
    validation, test = capsys.readouterr().out.split("## test cases")
    assert "Not compared" in validation and "Best on" not in test
    assert "validation cases: Ours 3d (Ours; dice" in validation
    write_values(path, {"validation": rows[: len(rows) // 2]}, "dice", ORIGIN)
    assert main(["compare", "--values", str(path)]) == 2  # one configuration
    assert "SemiBaselineTrainer was not" in capsys.readouterr().err


def test_the_command_reads_folds_and_seeds_and_chooses_on_validation_cases(
    tmp_path, monkeypatch, capsys
):
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name / "Dataset007_Seven").mkdir(parents=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    labels = tmp_path / "raw" / "Dataset007_Seven" / "labelsTs"
    labels.mkdir()
    (labels / "x.nii.gz").touch()
    for trainer, gain in (("SemiBaselineTrainer", 0.0), ("SemiMeanTeacherTrainer", 0.02)):
        for seed, plans in enumerate(("nnUNetPlans", "nnUNetPlans_seed1")):
            for fold in "01":
                rows = [v for v in values(Model(trainer, "2d"), gain, folds=2)]
                rows = [v for v in rows if v.fold == fold and v.seed == seed]
                folder = tmp_path / "results" / "Dataset007_Seven" / f"{trainer}__{plans}__2d"
                write_table(folder / f"fold_{fold}" / "validation" / "metrics.csv", rows)
                if fold == "0":
                    write_table(folder / f"fold_{fold}" / "test" / "metrics.csv", rows)
    assert main(["compare", "-d", "7", "-o", str(tmp_path / "table.md")]) == 0
    output = capsys.readouterr().out
    assert "## validation cases" in output and "24 of 24" in output
    assert "validation cases: Mean Teacher 2d" in output
    assert "## test cases" in output and "not measured yet" in output
    table = (tmp_path / "table.md").read_text()
    assert output.count("better") >= 2 and output.startswith(table)
    for metric in ("hd95", "class"):
        assert main(["compare", "-d", "7", "--metric", metric]) == 2
        assert "choose from dice" in capsys.readouterr().err
    theirs = tmp_path / "results" / "Dataset007_Seven" / "SemiMeanTeacherTrainer__nnUNetPlans__2d"
    for path in theirs.parent.glob("SemiMeanTeacherTrainer__*/fold_*/validation/metrics.csv"):
        path.unlink()
    write_table(theirs / "fold_3" / "validation" / "metrics.csv", values(OURS, 0, seeds=1))
    assert main(["compare", "-d", "7"]) == 0  # the test cases can be compared
    output = capsys.readouterr().out
    assert "Not compared: " in output and "in common" in output
    assert "## test cases" in output and "better" in output
    for verb in (["compare"], ["report", "-o", str(tmp_path / "report.html")], ["status"]):
        assert main([*verb, "-d", "7", "-p", "nnUNetPlan"]) == 2
        output = " ".join(capsys.readouterr().err.split())
        assert "plans 'nnUNetPlan': were not used" in output and "mean 'nnUNetPlans'" in output


def test_a_metric_without_any_value_is_not_reported_as_a_missing_fold():
    rows = [replace(v, value=math.nan) for v in [*values(BASE, 0), *values(OURS, 0)]]
    with pytest.raises(UserError, match="not defined"):
        compare_with_baseline(rows, "Base", "dice")


# ---- patients ----


def six_lose(loss: float) -> tuple[list[Value], list[Value]]:
    """Return six cases that gain .02 and six that lose, without and with their patient."""
    worse = {f"case0{case}" for case in range(6, 12)}
    ours = [
        replace(v, value=v.value + (-loss if v.case in worse else 0.02))
        for v in values(OURS, 0, noise=0)
    ]
    rows = [*values(BASE, 0, noise=0), *ours]
    return rows, [replace(v, patient="Ann") if v.case in worse else v for v in rows]


def test_cases_of_one_patient_are_one_observation():
    rows, with_patient = six_lose(0.01)
    (by_case,) = compare_with_baseline(rows, "Base", "dice")
    (by_patient,) = compare_with_baseline(with_patient, "Base", "dice")
    assert by_case.overall.cases == 12 and by_case.overall.mean == pytest.approx(0.005)
    assert by_patient.overall.cases == 7 and by_patient.overall.better == 6
    assert by_patient.overall.mean == pytest.approx((6 * 0.02 - 0.01) / 7)
    assert by_patient.classes["liver"][0].cases == 7
    # no number of the same line counts Ann six times
    assert by_patient.mean - by_patient.baseline_mean == pytest.approx(by_patient.overall.mean)
    assert by_patient.seeds == pytest.approx(dict.fromkeys((0, 1), by_patient.overall.mean))
    # the baseline has .7 + .01 * case; of Ann's cases 6 to 11 on average .785
    assert by_patient.baseline_mean == pytest.approx((6 * 0.725 + 0.785) / 7)
    assert f"by seed: {100 * (6 * 0.725 + 0.785) / 7:.2f}," in describe_seeds(
        with_patient, "Base", "dice"
    )


def test_models_are_ranked_by_patients():
    """By cases the baseline is ahead, but six of the cases are of one patient."""
    rows, with_patient = six_lose(0.03)
    assert (
        rank_models(rows, "dice")[0][0] == BASE and rank_models(with_patient, "dice")[0][0] == OURS
    )


def test_a_note_counts_cases_and_patients_if_they_differ():
    rows = values(BASE, 0)
    assert describe_patients(rows) == ""
    assert "12 cases of 10 pat" in describe_patients([replace(v, patient=v.case[-1]) for v in rows])
    assert "12 cases of 1 patient." in describe_patients([replace(v, patient="Ann") for v in rows])
