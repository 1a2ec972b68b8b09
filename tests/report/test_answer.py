"""The answer claims no gain without evidence."""

from __future__ import annotations

from dataclasses import replace

from semi_nnunet.evaluation.comparison import compare_with_baseline, describe_patients
from semi_nnunet.evaluation.values import Model
from semi_nnunet.report.answer import answer_question
from semi_nnunet.report.wording import MINUS
from tests.report.gains import measured
from tests.report.results_tree import BASE, OTHER, OURS


def test_validation_cases_choose_and_test_cases_confirm():
    chosen = measured("validation", **{BASE: 0, OURS: 0.03, OTHER: 0.02})
    said = answer_question([measured("test", **{BASE: 0, OURS: 0.02, OTHER: 0.04}), chosen], BASE)
    assert said.verdict == "better" and said.subset == "test"
    assert said.headline == "Yes: MeanTeacher is better than Baseline on the test cases."
    assert any("best on the validation cases, among 2 methods" in s for s in said.sentences)
    said = answer_question([measured("test", **{BASE: 0, OURS: 0, OTHER: 0.04}), chosen], BASE)
    assert said.verdict == "open"
    assert said.headline == "No evidence that MeanTeacher is better than Baseline."


def test_patients_are_counted_where_they_are_known():
    item = measured("test", **{BASE: 0, OURS: 0.03})
    told = tuple(replace(v, patient=v.case[:2]) for v in item.values)
    (found,) = compare_with_baseline(told, BASE, "dice")
    note = describe_patients(told)
    said = answer_question([replace(item, values=told, compared=(found,), note=note)], BASE)
    sentences = " ".join(said.sentences)
    assert "Better in 10 of 10 test patients" in sentences and sentences.endswith(note)
    assert "test cases" in " ".join(answer_question([item], BASE).sentences)


def test_no_gain_is_claimed_without_evidence():
    said = answer_question([measured("test", **{BASE: 0, OURS: 0.0001})], BASE)
    assert said.headline.startswith("No evidence") and "Yes" not in " ".join(said.sentences)
    said = answer_question([measured("test", **{BASE: 0, OURS: -0.02})], BASE)
    assert said.verdict == "worse" and said.headline.startswith("No: MeanTeacher is worse")


def test_validation_cases_alone_do_not_say_yes():
    said = answer_question([measured("validation", **{BASE: 0, OURS: 0.03, OTHER: 0.02})], BASE)
    assert "no test cases confirm it" in said.headline
    assert any("flatters" in sentence for sentence in said.sentences)
    said = answer_question([measured("validation", **{BASE: 0.05, OURS: 0.03})], BASE)
    assert said.headline == "No: on the validation cases, nothing is better than Baseline itself."
    equal = measured("validation", **{BASE: 0})
    rows = [*equal.values, *(replace(v, model=Model(OURS, "2d")) for v in equal.values)]
    equal = replace(
        equal, values=tuple(rows), compared=tuple(compare_with_baseline(rows, BASE, "dice"))
    )
    said = answer_question([equal], BASE)
    assert "nothing is better" in said.headline and said.verdict == "open"


def test_who_has_other_folds_is_left_out_of_the_choice_and_named():
    chosen = measured("validation", **{BASE: 0, OURS: 0.03})
    stray = replace(chosen.values[0], model=Model(OTHER, "2d"), fold="4", value=0.99)
    row = replace(chosen.tables[0].rows[0], model=stray.model)
    table = replace(chosen.tables[0], rows=(*chosen.tables[0].rows, row))
    chosen = replace(chosen, values=(*chosen.values, stray), tables=(table,))
    said = answer_question([measured("test", **{BASE: 0, OURS: 0.03, OTHER: 0.05}), chosen], BASE)
    assert said.headline == "Yes: MeanTeacher is better than Baseline on the test cases."
    left_out = f"{OTHER.removeprefix('Semi').removesuffix('Trainer')} was left out of that choice"
    assert any(sentence.startswith(left_out) for sentence in said.sentences)


def test_several_methods_without_validation_are_not_ranked():
    said = answer_question([measured("test", **{BASE: 0, OURS: 0.03, OTHER: 0.02})], BASE)
    assert said.headline == "Yes: 2 of 2 methods are better than Baseline on the test cases."
    assert any("not confirmed" in sentence for sentence in said.sentences)
    assert "corrected for 2 methods" in " ".join(said.sentences)


def test_the_answer_is_about_the_method_that_other_cases_chose():
    test = measured("test", **{BASE: 0, OURS: 0.02, OTHER: 0.04})
    said = answer_question([test], BASE, OURS)
    assert said.headline == "Yes: MeanTeacher is better than Baseline on the test cases."
    assert said.sentences[-1] == "These cases did not choose MeanTeacher."
    assert said.compared and said.compared.model.trainer == OURS
    proving = measured("validation", **{BASE: 0, OURS: 0.02, OTHER: 0.04})
    said = answer_question([proving], BASE, OURS)
    assert said.headline == "Yes: MeanTeacher is better than Baseline on the validation cases."
    assert "flatters" not in " ".join(said.sentences)
    assert answer_question([measured("test", **{BASE: 0, OURS: 0})], BASE, OURS).verdict == "open"
    assert answer_question([test], BASE, "SemiOtherTrainer") == answer_question(
        [test], BASE
    )  # it is not here


def test_shorter_distances_are_better():
    said = answer_question([measured("test", "hd95_edge_mm", **{BASE: 0, OURS: -0.1})], BASE)
    assert said.verdict == "better" and f"{MINUS}0.10 mm" in said.sentences[0]


def test_one_trainer_alone_is_nothing_to_compare():
    said = answer_question([measured("test", **{BASE: 0})], BASE)
    assert "No other method" in said.sentences[0] and said.compared is None
    both = answer_question(
        [measured("validation", **{OURS: 0.2, "OtherTrainer": 0})], BASE
    ).sentences
    assert both[1].startswith("On the validation cases, best first (Dice): MeanTeacher 0.")
