"""Recipes are found by their names, in the installed package or a checkout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.util.errors import UserError
from semi_nnunet.workflows import recipe_files
from semi_nnunet.workflows.recipe_files import find_recipe, find_recipe_files, find_recipes_folder

PLANS = Path(__file__).resolve().parents[2] / "plans"


def test_every_recipe_is_listed_with_its_title(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--list"]) == 0
    output = capsys.readouterr().out
    for path in PLANS.glob("*.json"):
        title = json.loads(path.read_text())["title"]
        assert any(
            line.split("  ")[0] == path.stem and title in line for line in output.split("\n")
        )


def test_a_recipe_is_found_by_its_name_or_path(tmp_path, monkeypatch) -> None:
    assert find_recipe("la_4") == find_recipe_files()["la_4"]
    (tmp_path / "mine.json").write_text("{}")
    assert find_recipe(tmp_path / "mine.json") == tmp_path / "mine.json"
    monkeypatch.chdir(tmp_path)
    assert find_recipe("mine.json") == Path("mine.json")
    with pytest.raises(UserError, match=r"recipe 'la_5': .* Fix: did you mean 'la_"):
        find_recipe("la_5")


def test_installed_recipes_come_before_those_of_a_checkout(tmp_path, monkeypatch) -> None:
    package = tmp_path / "site" / "semi_nnunet"
    for folder in (package / "recipes", tmp_path / "site" / "plans"):
        folder.mkdir(parents=True)
        shutil.copy(PLANS / "la_4.json", folder)
    monkeypatch.setattr(recipe_files, "PACKAGE", package)
    assert find_recipes_folder() == package / "recipes"
    shutil.rmtree(package / "recipes")
    assert find_recipe("la_4") == tmp_path / "site" / "plans" / "la_4.json"
    shutil.rmtree(tmp_path / "site" / "plans")
    with pytest.raises(UserError, match="recipes are missing"):
        find_recipe("la_4")


def test_a_recipe_is_followed_by_its_name(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "la_4", "files", "--converted", "501", "--split", "601", "--dry-run"]) == 0
    by_name = capsys.readouterr().out
    path = str(PLANS / "la_4.json")
    assert main(["run", path, "files", "--converted", "501", "--split", "601", "--dry-run"]) == 0
    assert capsys.readouterr().out == by_name and "nnUNetPlans_la_4" in by_name
    assert main(["run", "la_40", "files", "--converted", "501", "--split", "601", "--dry-run"]) == 2
    assert "did you mean 'la_4'" in capsys.readouterr().err
