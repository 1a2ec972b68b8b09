"""The texts of an auto before and after its trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from semi_nnunet.automatic.checked_choice import CheckedChoice
from semi_nnunet.automatic.page import (
    build_choice,
    describe_case_roles,
    describe_next_cases,
    explain_changes,
    format_answer_page,
    format_progress_page,
    format_schedule,
    warn_of_short_training,
)
from semi_nnunet.automatic.schedule import TrainingRound, divide_budget
from semi_nnunet.automatic.state import AutoState, RoundForecast
from semi_nnunet.reporting.choice import read_choice
from tests.automatic.test_cases import cases_of
from tests.automatic.test_schedule import CANDIDATES, setting


def test_the_table_has_a_line_for_each_round_in_columns() -> None:
    rounds = divide_budget(setting(), CANDIDATES, 8 * 3600)
    head, *lines = format_schedule(rounds, setting()).strip().splitlines()
    assert head.split() == ["round", "steps", "folds", "about", "methods"]
    for line, current in zip(lines, rounds, strict=False):
        assert line.split()[:2] == [current.name, str(current.steps)]
        assert line.index(current.trainers[0]) == head.index("methods")
    assert "test cases check" in lines[-1]


def test_the_roles_of_the_cases_are_described() -> None:
    text = describe_case_roles(cases_of(has_test_labels=False), ["short", "full"])
    assert "Folds 0 1 choose" in text and "folds 2 3 4 check it" in text
    assert "lack of time" in describe_case_roles(cases_of(), ["full"])
    assert "too few" in describe_case_roles(cases_of(patients=4), ["full"])
    nothing = cases_of(folds=0, patients=1, has_test_labels=False)
    assert describe_case_roles(nothing, ["full"]).endswith("to check it.")


def test_too_few_patients_are_announced_beforehand() -> None:
    for cannot in (cases_of(test_patients=5), cases_of(patients=5, has_test_labels=False)):
        text = describe_case_roles(cannot, ["full"])
        assert "proven" in text and "labelsTs" in text
    for can in (cases_of(test_patients=6), cases_of(patients=6, has_test_labels=False)):
        assert "baseline" not in describe_case_roles(can, ["full"])


def test_a_finished_choice_is_still_described() -> None:
    (last,) = divide_budget(setting(), ["B"], 3600, finished=["short", "longer"])
    assert "Folds 0 1 2 choose" in format_schedule([last], setting(), ["short", "longer"])


def test_hours_for_few_supervised_steps_cause_a_warning() -> None:
    baseline, method = "SemiBaselineTrainer", "SemiUnifiedTrainer"
    last = TrainingRound("full", (baseline, method), ("all",), 1000, baseline_ratio=1.8)
    (warning,) = warn_of_short_training([last])
    assert "1800" in warning
    assert warn_of_short_training([replace(last, steps=1200)]) == []
    assert warn_of_short_training([replace(last, name="short")]) == []


def test_the_page_begins_with_the_answer(tmp_path: Path) -> None:
    (last,) = divide_budget(setting(), ["B"], 3600, finished=["short", "longer"])
    state = AutoState(tmp_path / "state.json", {}, 1800.0, {}, {"full": last}, {})
    checked = CheckedChoice("SemiBTrainer", "Unlabelled images help: by a lot.")
    choice = build_choice("SemiCPSTrainer", state, cases_of(), checked, 2)
    text = format_answer_page("Dataset007_Seven", checked, choice, None, [])
    title, _, first, *rest = text.splitlines()
    assert (title, first) == ("# Dataset007_Seven", checked.answer)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rest]
    assert ["full", last.describe_steps(), "all", "Base, B", ""] in rows
    assert "B. 30 min of 2 h were used." in text
    assert "is kept" not in text
    assert "SemiCPSTrainer is kept" in format_answer_page(
        "Dataset007_Seven", checked, choice, "export it", []
    )
    choice.write(tmp_path / "choice.json")
    assert read_choice(tmp_path / "choice.json") == choice


def test_the_page_ends_with_the_cases_to_annotate_next(tmp_path: Path) -> None:
    (last,) = divide_budget(setting(), ["B"], 3600, finished=["short", "longer"])
    state = AutoState(tmp_path / "state.json", {}, 1800.0, {}, {"full": last}, {})
    checked = CheckedChoice("SemiBTrainer", "Unlabelled images help.")
    choice = build_choice("SemiBTrainer", state, cases_of(), checked, 2)
    lines = describe_next_cases([("case_7", "It is | odd.")], "next.html", "semi_nnunet next")
    text = format_answer_page("Dataset007_Seven", checked, choice, None, lines)
    part = text.rpartition("\n## ")[2]
    assert "case_7" in part and "next.html" in part and "\nsemi_nnunet next\n" in part
    (row,) = (line for line in part.splitlines() if line.startswith("| case_7"))
    assert row.replace("\\|", "").count("|") == 3  # a cell cannot add a column


def test_a_shorter_round_is_explained_by_the_delay_of_the_last(tmp_path: Path) -> None:
    rounds = divide_budget(setting(), CANDIDATES, 8 * 3600)
    state = AutoState(tmp_path / "state.json", {}, 9000.0)
    state.forecast = {current.name: RoundForecast(current.steps, 3600.0) for current in rounds}
    state.rounds, state.begun = {"short": rounds[0]}, {"short": 0.0}
    assert explain_changes(state, rounds[1:]) == []
    last = replace(rounds[-1], steps=rounds[-1].steps // 2)
    dropped, shorter = explain_changes(state, [last])
    assert rounds[1].name in dropped and "dropped" in dropped
    for text in (last.name, str(last.steps), str(rounds[-1].steps), "2.5 h", "60 min"):
        assert text in shorter


def test_the_page_of_an_unfinished_choice_has_its_rounds_and_numbers(tmp_path: Path) -> None:
    first, *_ = divide_budget(setting(), CANDIDATES, 8 * 3600)
    state = AutoState(tmp_path / "state.json", {}, 1800.0, rounds={"short": first})
    text = format_progress_page("Dataset007_Seven", state, cases_of(), 8)
    assert "short round is running" in text and str(first.steps) in text
    state.ranked, state.dice = {"short": ["SemiBTrainer"]}, {"short": {"SemiBTrainer": 0.8123}}
    state.notes = ["The full round is dropped."]
    text = format_progress_page("Dataset007_Seven", state, cases_of(), 8)
    assert "short round is over" in text and "B 81.23" in text and state.notes[0] in text


def test_the_state_keeps_what_the_page_needs(tmp_path: Path) -> None:
    state = AutoState(tmp_path / "state.json", {}, 1.0)
    state.forecast, state.begun = {"full": RoundForecast(100, 2.0)}, {"full": 1.0}
    state.dice, state.notes = {"short": {"A": 0.5}}, ["Shorter."]
    state.save()
    assert AutoState.of(state.path, {}) == state
