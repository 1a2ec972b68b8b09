"""The answer claims no gain without evidence."""

from __future__ import annotations

from dataclasses import replace

from semi_nnunet.evaluation.comparison import compare_with_baseline, describe_patients
from semi_nnunet.evaluation.values import Model
from semi_nnunet.reporting.answer import answer_question
from semi_nnunet.reporting.wording import MINUS
from tests.report.gains import measured
from tests.report.results_tree import BASE, OTHER, OURS


def test_validation_cases_choose_and_test_cases_confirm():
    validation = measured("validation", **{BASE: 0, OURS: 0.03, OTHER: 0.02})
    answer = answer_question(
        [measured("test", **{BASE: 0, OURS: 0.02, OTHER: 0.04}), validation], BASE
    )
    assert answer.verdict == "better" and answer.subset == "test"
    assert answer.headline.startswith("Yes: Mean Teacher ") and "test" in answer.headline
    assert any("best of 2 methods" in sentence for sentence in answer.sentences)
    answer = answer_question(
        [measured("test", **{BASE: 0, OURS: 0, OTHER: 0.04}), validation], BASE
    )
    assert answer.verdict == "open"
    assert answer.headline.startswith("No evidence")


def test_patients_are_counted_if_they_are_known():
    item = measured("test", **{BASE: 0, OURS: 0.03})
    with_patients = tuple(replace(v, patient=v.case[:2]) for v in item.values)
    (compared,) = compare_with_baseline(with_patients, BASE, "dice")
    note = describe_patients(with_patients)
    answer = answer_question(
        [replace(item, values=with_patients, compared=(compared,), note=note)], BASE
    )
    sentences = " ".join(answer.sentences)
    assert "Better in 10 of 10 test patients" in sentences and sentences.endswith(note)
    assert "test cases" in " ".join(answer_question([item], BASE).sentences)


def test_few_steps_are_neither_a_yes_nor_a_no():
    for gain in (0.03, -0.02):
        item = measured("test", **{BASE: 0, OURS: gain})
        short = replace(item, compared=tuple(replace(c, steps=30) for c in item.compared))
        for results in (short, replace(short, subset="validation")):
            answer = answer_question([results], BASE)
            assert answer.verdict == "open" and "Too few steps" in answer.headline
            assert "30 steps" in " ".join(answer.sentences)


def test_no_gain_is_claimed_without_evidence():
    answer = answer_question([measured("test", **{BASE: 0, OURS: 0.0001})], BASE)
    assert answer.headline.startswith("No evidence") and "Yes" not in " ".join(answer.sentences)
    answer = answer_question([measured("test", **{BASE: 0, OURS: -0.02})], BASE)
    assert answer.verdict == "worse" and answer.headline.startswith("No: Mean Teacher is worse")


def test_validation_cases_without_test_cases_do_not_say_yes():
    answer = answer_question([measured("validation", **{BASE: 0, OURS: 0.03, OTHER: 0.02})], BASE)
    assert "no test cases" in answer.headline
    assert any("flatters" in sentence for sentence in answer.sentences)
    answer = answer_question([measured("validation", **{BASE: 0.05, OURS: 0.03})], BASE)
    assert "no method" in answer.headline
    equal = measured("validation", **{BASE: 0})
    rows = [*equal.values, *(replace(v, model=Model(OURS, "2d")) for v in equal.values)]
    equal = replace(
        equal, values=tuple(rows), compared=tuple(compare_with_baseline(rows, BASE, "dice"))
    )
    answer = answer_question([equal], BASE)
    assert "no method" in answer.headline and answer.verdict == "open"


def test_a_method_with_other_folds_is_left_out_of_the_choice_and_named():
    validation = measured("validation", **{BASE: 0, OURS: 0.03})
    stray = replace(validation.values[0], model=Model(OTHER, "2d"), fold="4", value=0.99)
    row = replace(validation.tables[0].rows[0], model=stray.model)
    table = replace(validation.tables[0], rows=(*validation.tables[0].rows, row))
    validation = replace(validation, values=(*validation.values, stray), tables=(table,))
    answer = answer_question(
        [measured("test", **{BASE: 0, OURS: 0.03, OTHER: 0.05}), validation], BASE
    )
    assert answer.headline.startswith("Yes: Mean Teacher ") and "test" in answer.headline
    left_out = f"{OTHER.removeprefix('Semi').removesuffix('Trainer')} was left out"
    assert any(sentence.startswith(left_out) for sentence in answer.sentences)


def test_several_methods_without_validation_are_not_ranked():
    answer = answer_question([measured("test", **{BASE: 0, OURS: 0.03, OTHER: 0.02})], BASE)
    assert answer.headline.startswith("Yes: 2 of 2 ") and "test" in answer.headline
    assert any("not confirmed" in sentence for sentence in answer.sentences)
    assert "corrected for 2 methods" in " ".join(answer.sentences)


def test_the_answer_is_about_the_method_that_other_cases_chose():
    test = measured("test", **{BASE: 0, OURS: 0.02, OTHER: 0.04})
    answer = answer_question([test], BASE, OURS)
    assert answer.headline.startswith("Yes: Mean Teacher ") and "test" in answer.headline
    assert "other cases" in answer.sentences[-1]
    assert answer.compared and answer.compared.model.trainer == OURS
    proving = measured("validation", **{BASE: 0, OURS: 0.02, OTHER: 0.04})
    answer = answer_question([proving], BASE, OURS)
    assert answer.headline.startswith("Yes: Mean Teacher ") and "validation" in answer.headline
    assert "flatters" not in " ".join(answer.sentences)
    assert answer_question([measured("test", **{BASE: 0, OURS: 0})], BASE, OURS).verdict == "open"
    assert answer_question([test], BASE, "SemiOtherTrainer") == answer_question(
        [test], BASE
    )  # it is not here


def test_shorter_distances_are_better():
    answer = answer_question([measured("test", "hd95_edge_mm", **{BASE: 0, OURS: -0.1})], BASE)
    assert answer.verdict == "better" and f"{MINUS}0.10 mm" in answer.sentences[0]


def test_one_trainer_cannot_be_compared():
    answer = answer_question([measured("test", **{BASE: 0})], BASE)
    assert "No other method" in answer.sentences[0] and answer.compared is None
    sentences = answer_question(
        [measured("validation", **{OURS: 0.2, "OtherTrainer": 0})], BASE
    ).sentences
    assert sentences[1].partition("(Dice): ")[2].startswith("Mean Teacher ")
