"""``plan`` prints each decided setting once; ``--all`` prints all settings."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.planning.plan import EVERY_TRAINER, PlannedRow
from semi_nnunet.planning.shown import NNUNET_VALUES, format_decided_settings
from semi_nnunet.settings.common import TOPICS, SemiSettings


def make_row(setting: str, value: Any, configuration: str = "2d", **more: Any) -> PlannedRow:
    fields = {
        "trainer": EVERY_TRAINER, "reason": "so", "topic": TOPICS[0],
        "is_given": False, "is_planned": True,
    }  # fmt: skip
    return PlannedRow(configuration=configuration, setting=setting, value=value, **fields | more)


def lines(rows: list[PlannedRow], *trainers: str) -> list[list[str]]:
    return [line.split() for line in format_decided_settings(rows, ["2d", "3d_fullres"], trainers)]


def test_settings_equal_in_all_configurations_appear_once_and_first() -> None:
    rows = [
        make_row(name, 3, key) for key in ("2d", "3d_fullres") for name in ("epochs", "ramp_up")
    ]
    rows += [
        make_row("size", 12, "2d"),
        make_row("size", 2, "3d_fullres"),
        make_row("only", 1, "3d_fullres"),
    ]
    assert lines(rows) == [
        ["2d,", "3d_fullres,", "every", "trainer"],
        TOPICS[0].split(), ["epochs", "3", "so"], ["ramp_up", "3", "so"],
        ["2d,", "every", "trainer"],
        TOPICS[0].split(), ["size", "12", "so"],
        ["3d_fullres,", "every", "trainer"],
        TOPICS[0].split(), ["size", "2", "so"], ["only", "1", "so"],
    ]  # fmt: skip


def test_nnunets_values_and_constants_are_hidden_unless_given() -> None:
    as_nnunet = [make_row(name, value) for name, value in NNUNET_VALUES.items()]
    constant = make_row("momentum", 0.99, is_planned=False)
    assert lines([*as_nnunet, constant]) == []
    by_user = [dataclasses.replace(row, is_given=True) for row in (*as_nnunet, constant)]
    assert len(lines(by_user)) == 2 + len(by_user)


def test_the_settings_of_a_named_method_are_shown() -> None:
    method = {"trainer": "SemiCPSTrainer", "topic": "method"}
    rows = [
        make_row("weight", 1, is_planned=False, **method),
        make_row("other", 2, trainer="SemiBCPTrainer"),
    ]
    rows.append(make_row("given", 3, trainer="SemiBCPTrainer", is_given=True))
    assert [words[0] for words in lines(rows)][2:] == ["given"]
    assert "weight" in [words[0] for words in lines(rows, "SemiCPSTrainer")]


def test_a_value_of_all_trainers_with_exceptions_is_shown_once() -> None:
    names = ("SemiBCPTrainer", "SemiCPSTrainer", "SemiBaselineTrainer", "SemiUnifiedTrainer")
    rows = [
        make_row("epochs", epochs, trainer=trainer, reason=reason, is_given=True)
        for trainer, epochs, reason in zip(
            names, (9, 9, 20, 9), ("common", "common", "own", "common"), strict=True
        )
    ]
    shown = [line.split() for line in format_decided_settings(rows, ["2d"])]
    assert [words for words in shown if words[0] != TOPICS[0].split()[0]] == [
        ["2d,", "SemiBaselineTrainer"], ["epochs", "20", "own"],
        ["2d,", "every", "other", "trainer"], ["epochs", "9", "common"],
    ]  # fmt: skip
    apart = list(format_decided_settings(rows, ["2d"], ["SemiCPSTrainer"]))
    assert sum("SemiCPSTrainer" in line for line in apart) == 1
    assert sum(line.split()[0] == "epochs" for line in apart) == 3


def test_batches_of_the_default_method_are_shown_where_they_are_its_own() -> None:
    rows = [
        make_row("labelled_batch_size", value, trainer=trainer)
        for trainer, value in (("SemiUnifiedTrainer", 6), ("SemiBaselineTrainer", 12))
    ]
    shown = format_decided_settings(rows, ["2d"], batches_of="SemiUnifiedTrainer")
    assert [line.split()[:2] for line in shown][-1] == ["labelled_batch_size", "6"]


def test_nnunets_values_are_existing_settings() -> None:
    assert set(NNUNET_VALUES) <= {field.name for field in dataclasses.fields(SemiSettings)}


def test_the_command_prints_little_and_ends_with_the_next_command(
    phantom: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "-d", phantom.name, "--new-plans", "nnUNetPlans_shown", "--set"]
    assert main([*words, "momentum=0.5", "SemiCPSTrainer.epochs=3"]) == 0
    short = capsys.readouterr().out.splitlines()
    assert len(short) < 40
    settings = [line.split()[0] for line in short if line.startswith("  ")]
    assert settings.count("momentum") == 1 and settings.count("epochs") == 1
    assert "weight_decay" not in settings and "ema_decay" not in settings
    last = short[-1]
    assert last.startswith(f"next: nnUNetv2_train {phantom.name} 2d 0 -tr SemiUnifiedTrainer")
    assert "-p nnUNetPlans_shown" in last
    assert main([*words[:-1], "--all"]) == 0
    full = capsys.readouterr().out
    assert len(full.splitlines()) > 3 * len(short) and "weight_decay" in full
    assert all(f"2d, {trainer}\n" in full for trainer in settings_classes())
    assert main([*words[:-1], "-tr", "SemiMeanTeacherTrainer"]) == 0
    assert "ema_decay" in capsys.readouterr().out


def test_an_unknown_method_is_reported(phantom: Any, capsys) -> None:
    words = [
        "plan",
        "-d",
        phantom.name,
        "--new-plans",
        "nnUNetPlans_never",
        "-tr",
        "SemiMeanTeacher",
    ]
    assert main(words) == 2
    assert "'SemiMeanTeacherTrainer'" in capsys.readouterr().err
    assert not (phantom.preprocessed / "nnUNetPlans_never.json").exists()
