"""``plan`` prints what was decided for the data set, each setting once; ``--all`` prints all."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.planning.plan import EVERY_TRAINER, PlannedRow
from semi_nnunet.planning.shown import NNUNET_VALUES, decided_settings
from semi_nnunet.settings.common import TOPICS, SemiSettings


def row(setting: str, value: Any, configuration: str = "2d", **more: Any) -> PlannedRow:
    about = {
        "trainer": EVERY_TRAINER, "reason": "so", "topic": TOPICS[0], "is_given": False, "is_planned": True,
    }  # fmt: skip
    return PlannedRow(configuration=configuration, setting=setting, value=value, **about | more)


def lines(rows: list[PlannedRow], *trainers: str) -> list[list[str]]:
    return [line.split() for line in decided_settings(rows, ["2d", "3d_fullres"], trainers)]


def test_what_is_the_same_in_all_configurations_stands_once_and_first() -> None:
    rows = [row(name, 3, key) for key in ("2d", "3d_fullres") for name in ("epochs", "ramp_up")]
    rows += [row("size", 12, "2d"), row("size", 2, "3d_fullres"), row("only", 1, "3d_fullres")]
    found = lines(rows)
    assert found == [
        ["2d,", "3d_fullres,", "every", "trainer"],
        TOPICS[0].split(), ["epochs", "3", "so"], ["ramp_up", "3", "so"],
        ["2d,", "every", "trainer"],
        TOPICS[0].split(), ["size", "12", "so"],
        ["3d_fullres,", "every", "trainer"],
        TOPICS[0].split(), ["size", "2", "so"], ["only", "1", "so"],
    ]  # fmt: skip


def test_what_nnunet_does_anyway_and_other_constants_are_left_out_unless_given() -> None:
    as_nnunet = [row(name, value) for name, value in NNUNET_VALUES.items()]
    constant = row("momentum", 0.99, is_planned=False)
    assert lines([*as_nnunet, constant]) == []
    given = [dataclasses.replace(one, is_given=True) for one in (*as_nnunet, constant)]
    assert len(lines(given)) == 2 + len(given)


def test_a_methods_own_settings_are_told_where_it_is_named() -> None:
    method = {"trainer": "SemiCPSTrainer", "topic": "method"}
    rows = [row("weight", 1, is_planned=False, **method), row("other", 2, trainer="SemiBCPTrainer")]
    rows.append(row("given", 3, trainer="SemiBCPTrainer", is_given=True))
    assert [words[0] for words in lines(rows)][2:] == ["given"]
    assert "weight" in [words[0] for words in lines(rows, "SemiCPSTrainer")]


def test_nothing_that_a_rule_left_as_nnunet_has_it_is_hidden_by_a_name_that_is_gone() -> None:
    assert set(NNUNET_VALUES) <= {field.name for field in dataclasses.fields(SemiSettings)}


def test_the_command_says_little_and_ends_with_the_next_one(
    phantom: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "-d", phantom.name, "--name", "nnUNetPlans_shown", "--set"]
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
    whole = capsys.readouterr().out
    assert len(whole.splitlines()) > 3 * len(short) and "weight_decay" in whole
    assert all(f"2d, {trainer}\n" in whole for trainer in settings_classes())
    assert main([*words[:-1], "-tr", "SemiMeanTeacherTrainer"]) == 0
    assert "ema_decay" in capsys.readouterr().out


def test_a_method_that_does_not_exist_is_named(phantom: Any, capsys) -> None:
    words = ["plan", "-d", phantom.name, "--name", "nnUNetPlans_never", "-tr", "SemiMeanTeacher"]
    assert main(words) == 2
    assert "did you mean 'SemiMeanTeacherTrainer'" in capsys.readouterr().err
    assert not (phantom.preprocessed / "nnUNetPlans_never.json").exists()
