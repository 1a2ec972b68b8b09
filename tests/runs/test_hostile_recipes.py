"""Recipes and tables of values by strangers are refused, or their texts are shown as plain text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.workflows.recipe_files import find_recipes_folder

DECEIVING = "\x1b]0;evil\x07\u202e\n# forged"


def has_controls(text: str) -> bool:
    return bool({"\x1b", "\x07", "\u202e"} & set(text)) or "\n# forged" in text


def changed(**values: Any) -> str:
    content = json.loads((find_recipes_folder() / "la_4.json").read_text(encoding="utf-8"))
    return json.dumps({**content, **values})


REFUSED_RECIPES = {
    "nested": "[" * 100_000,
    "a list": "[1]",
    "long number": changed(seeds=0).replace('"seeds": 0', f'"seeds": {"9" * 10_000}'),
    "empty": "",
    "no text": "\0" * 100,
    "a converter of the system": changed(converter="os.system"),
    "a trainer elsewhere": changed(trainers=["../../evil"]),
    "a configuration elsewhere": changed(configurations=["../../evil"]),
    "a fold elsewhere": changed(folds=["../../evil"]),
    "a deceiving trainer": changed(trainers=[DECEIVING]),
    "a deceiving title": changed(title=DECEIVING),
    "a deceiving source": changed(
        published=[{"method": DECEIVING, "metric": "Dice", "value": 0.5, "source": DECEIVING}]
    ),
    "an unknown key": changed(__class__="x"),
    "an unknown option": changed(options={"command": "rm -rf /"}),
    "an unknown setting": changed(settings={"__class__": 1}),
    "a setting of a program": changed(settings={"models": {"a": "$(touch evil)"}}),
    "an infinite budget": changed(budget="1" * 400),
    "a huge patch": changed(patch=[10**9, 10**9, 10**9]),
    "seeds without end": changed(seeds=10**9),
    "a value that is none": changed().replace("0.5255", "NaN"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_RECIPES)
def test_a_hostile_recipe_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(REFUSED_RECIPES[name], encoding="utf-8")
    code = main(["run", str(recipe), str(tmp_path), "-d", "501", "-o", "601", "--dry-run"])
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert code == 2 and "Traceback" not in said and "Fix: " in said, said
    assert not has_controls(said)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]


@pytest.mark.parametrize("name", ["a;b.json", "$(touch evil).json", "-x.json", "a\nb.json"])
def test_the_name_of_a_recipe_is_no_program(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).absolute().write_text(changed(), encoding="utf-8")
    main(["run", f"./{name}", str(tmp_path), "-d", "501", "-o", "601", "--dry-run"])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    assert not (tmp_path / "evil").exists()


HEAD = (
    '"dataset","plans","subset","trainer","configuration","fold","seed","case","patient","class",'
    '"dice"\n'
)


def table(
    case: str = "a", trainer: str = "SemiCPSTrainer", dice: str = "0.5", **others: str
) -> str:
    names = {"dataset": "Phantom", "plans": "P", "subset": "test", "class": "organ", **others}
    row = [names["dataset"], names["plans"], names["subset"], "{}", "2d", "0", "0"]
    rows = [
        ",".join([*row, case, case, names["class"], dice]).replace("{}", each)
        for each in ("SemiBaselineTrainer", trainer)
    ]
    return HEAD + "\n".join(rows) + "\n\n"


REFUSED_TABLES: dict[str, str | bytes] = {
    "empty": "",
    "no rows": HEAD + "\n",
    "no numbers": table(dice="good"),
    "infinite": table(dice="inf"),
    "above 1": table(dice="1e300"),
    "no text": b"\xff\xfe\x00" * 100,
    "zeros": table(case="a\0b"),
    "an open quote": table(case='"a'),
    "a huge cell": table(case="a" * 200_000),
    "other columns": table().replace('"class"', '"clas"'),
    "a fold of text": table().replace(",0,0,", ",x,y,"),
    "a control character": table(case="\x1b]0;evil\x07"),
    "a mark of direction": table(trainer="\u202e"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_TABLES)
def test_a_hostile_table_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    content = REFUSED_TABLES[name]
    path = tmp_path / "values.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for words in (["compare", "--values", "values.csv"], ["report", "--values", "values.csv"]):
        code = main(words)
        captured = capsys.readouterr()
        said = captured.out + captured.err
        assert code == 2 and "Traceback" not in said, said
        assert "values.csv" in said and "Fix: " in said, said
        assert not has_controls(said)
    assert [path.name for path in tmp_path.iterdir()] == ["values.csv"]


SHOWN: dict[str, Callable[[], str]] = {
    "html": lambda: table(trainer="<script>alert(1)</script>", case="<img src=x onerror=a()>"),
    "a formula": lambda: table(case="=cmd|'/c calc'!A1", trainer="+SUM(1)"),
    "a heading": lambda: table(**{"class": "# organ | x"}, dataset="[a](javascript:b)"),
    "a path": lambda: table(trainer="../../evil", dataset="../../evil"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_strange_texts_of_a_table_are_plain_text(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "values.csv").write_text(SHOWN[name](), encoding="utf-8")
    assert main(["compare", "--values", "values.csv", "-o", "table.md"]) == 0
    assert main(["report", "--values", "values.csv", "-o", "page.html"]) == 0
    assert "Traceback" not in capsys.readouterr().err
    names = {"values.csv", "table.md", "page.html"}
    assert {path.name for path in tmp_path.iterdir()} == names
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page + text and "<img src=x" not in page + text
    assert "](javascript:b)" not in text and 'href="javascript' not in page
