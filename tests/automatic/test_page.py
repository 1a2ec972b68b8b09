"""What an auto says before it spends its hours, and after."""

from __future__ import annotations

from pathlib import Path

from semi_nnunet.automatic.page import choice_of, proving_words, schedule_table, short, story
from semi_nnunet.automatic.proof import Proof
from semi_nnunet.automatic.schedule import divide
from semi_nnunet.automatic.state import State
from semi_nnunet.report.choice import read_choice
from tests.automatic.test_cases import cases_of
from tests.automatic.test_schedule import CANDIDATES, setting


def test_the_table_has_a_line_for_each_round_in_columns() -> None:
    rounds = divide(setting(), CANDIDATES, 8 * 3600)
    head, *lines = schedule_table(rounds, setting()).strip().splitlines()
    assert head.split() == ["round", "steps", "folds", "about", "trainers"]
    for line, one in zip(lines, rounds, strict=False):
        assert line.split()[:2] == [one.name, str(one.steps)]
        assert line.index(one.trainers[0]) == head.index("trainers")
    assert "the labelled test cases prove it" in lines[-1]


def test_who_chooses_and_who_proves_is_said() -> None:
    said = proving_words(cases_of(has_test_labels=False), ["short", "full"])
    assert "Folds 0 1 choose" in said and "folds 2 3 4 prove it on other cases" in said
    assert "without a choice" in proving_words(cases_of(), ["full"])
    assert "too few labelled cases" in proving_words(cases_of(patients=4), ["full"])
    nothing = cases_of(folds=0, patients=1, has_test_labels=False)
    assert proving_words(nothing, ["full"]).endswith("nothing can prove it.")


def test_a_proof_that_cannot_succeed_is_told_before() -> None:
    for cannot in (cases_of(test_patients=5), cases_of(patients=5, has_test_labels=False)):
        assert "the baseline ships: put test cases into labelsTs" in proving_words(cannot, ["full"])
    for can in (cases_of(test_patients=6), cases_of(patients=6, has_test_labels=False)):
        assert "baseline" not in proving_words(can, ["full"])


def test_a_choice_that_is_over_is_still_told() -> None:
    (last,) = divide(setting(), ["B"], 3600, done=["short", "longer"])
    assert "Folds 0 1 2 choose" in schedule_table([last], setting(), ["short", "longer"])


def test_the_page_begins_with_the_answer(tmp_path: Path) -> None:
    (last,) = divide(setting(), ["B"], 3600, done=["short", "longer"])
    state = State(tmp_path / "state.json", {}, 1800.0, {}, {"full": last}, {})
    proof = Proof("SemiBTrainer", "Unlabelled images help: by a lot.")
    choice = choice_of("SemiCPSTrainer", state, cases_of(), proof, 2)
    text = story("Dataset007_Seven", proof, choice, None)
    title, _, first, *rest = text.splitlines()
    assert (title, first) == ("# Dataset007_Seven", proof.said)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rest]
    assert ["full", str(last.steps), "all", "Base, B", ""] in rows
    assert "B. 30 min of 2 h were spent." in text
    assert "is kept" not in text
    assert "of SemiCPSTrainer is kept" in story("Dataset007_Seven", proof, choice, "export it")
    choice.write(tmp_path / "choice.json")
    assert read_choice(tmp_path / "choice.json") == choice


def test_names_are_short() -> None:
    assert short("SemiMeanTeacherTrainer") == "MeanTeacher" and short("nnUNetTrainer") == "nnUNet"
