"""``semi_nnunet split``: names, lists and held-out cases become a data set with hidden labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.data.splits import choose_labelled
from semi_nnunet.data.splitting import Split, split
from tests.data.split_sources import CASES, make_source, names


@pytest.mark.parametrize("by_file", [False, True])
def test_held_out_cases_take_the_place_of_the_test_cases(
    by_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_source(tmp_path)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    (tmp_path / "labelled.txt").write_text("a\nd\n")
    (tmp_path / "patients.txt").write_text("b\ne\n")
    held_out = str(tmp_path / "patients.txt") if by_file else "2"  # of b, c, e, f
    command = ["split", "-d", "40", "-o", "650", "--list", str(tmp_path / "labelled.txt")]
    assert main([*command, "--held-out", held_out]) == 0
    (new,) = tmp_path.glob("Dataset650_*")
    assert names(new / "imagesTr") == names(new / "labelsTr") == {"a", "d"}
    assert names(new / "imagesTs") == names(new / "labelsTs") == {"b", "e"}
    assert names(new / "imagesUn") == {"c", "f"} == names(tmp_path / f"hidden_labels_{new.name}")
    assert len(list((new / "imagesTs").iterdir())) == 4  # both channels
    assert main([*command, "--held-out", held_out]) == 0  # done
    assert main(command) == 2  # another one of the same number


def test_the_command_names_the_new_data_set_and_refuses_a_number_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_source(tmp_path)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    command = ["split", "-d", "Dataset040_Whole", "-o", "41", "--labelled", "2"]
    assert main(command) == 0
    assert (tmp_path / "Dataset041_Whole2labelled/imagesUn").is_dir()
    assert len(list((tmp_path / "hidden_labels_Dataset041_Whole2labelled").iterdir())) == 4
    assert "semi_nnunet preprocess -d 41" in capsys.readouterr().out
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*command, "--name", "Other"]) == 2
    assert "is taken by Dataset041_Whole2labelled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-o", "-1"], "-o: must be a number from 1 to 999, got -1"),
        (["-o", "1000"], "-o: must be a number from 1 to 999, got 1000"),
        (["-o", "41", "--name", "a/b"], "--name: must be a name without / and \\, got 'a/b'"),
        (["-o", "41", "--name", ""], "--name: must be a name"),
        (["-o", "41", "--name", "  "], "--name: must be a name"),
    ],
)
def test_the_command_refuses_numbers_and_names_that_no_data_set_can_have(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    source = make_source(tmp_path)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert main(["split", "-d", "Dataset040_Whole", "--labelled", "2", *words]) == 2
    assert says in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [source]


def test_the_command_takes_the_published_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_source(tmp_path)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    command = ["split", "-d", "Dataset040_Whole", "-o", "41", "--labelled", "2", "--published"]
    assert main(command) == 2
    assert f"the list {source}/labelled_subsets.json does not exist" in capsys.readouterr().err
    (source / "labelled_subsets.json").write_text('{"2": ["f", "b"]}')
    assert main(command) == 0
    assert names(tmp_path / "Dataset041_Whole2labelled/imagesTr") == {"b", "f"}


def test_held_out_cases_are_whole_patients_and_none_of_a_labelled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_source(tmp_path, cases=["xa", "xb", "c", "d", "ea", "eb"])
    content = json.loads((source / "dataset.json").read_text())
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    (tmp_path / "list.txt").write_text("xa\n")
    (tmp_path / "held.txt").write_text("xb\n")
    (source / "imagesUn").mkdir()
    for case in ("ec", "g"):  # nobody labelled them; one is of a patient who is held out
        for channel in range(2):
            (source / f"imagesUn/{case}_{channel:04d}.nii.gz").write_text(f"{case} {channel}")
    (source / "dataset.json").write_text(json.dumps({**content, "patient": "."}))
    command = ["split", "-d", "Dataset040_Whole", "-o", "41", "--list", str(tmp_path / "list.txt")]
    assert main([*command, "--held-out", str(tmp_path / "held.txt")]) == 2  # of the same patient
    assert "--held-out names cases that are labelled" in capsys.readouterr().err
    (tmp_path / "held.txt").write_text("ea\neb\n")
    command += ["--held-out", str(tmp_path / "held.txt")]
    assert main(command) == 0
    assert names(tmp_path / "Dataset041_Whole1labelled/imagesTs") == {"ea", "eb"}
    assert names(tmp_path / "Dataset041_Whole1labelled/imagesUn") == {"xb", "c", "d", "g"}
    assert main(command) == 0 and "it is done" in capsys.readouterr().out
    (source / "dataset.json").write_text(json.dumps({**content, "patient": ".."}))
    assert main(command) == 2  # patients were told otherwise since
    assert "was not made by this command from what is there now" in capsys.readouterr().err


def test_from_python_it_makes_what_the_command_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_source(tmp_path)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    made = split("40", 41, 2, seed=3, held_out=1)
    target, hidden = tmp_path / "Dataset041_Whole2labelled", tmp_path / "hidden_labels_Dataset041_"
    in_words = "2 in imagesTr, 3 in imagesUn, 1 in imagesTs"
    assert made == Split(target, hidden.with_name(f"{hidden.name}Whole2labelled"), True, in_words)
    assert sorted(names(target / "imagesTr")) == choose_labelled(CASES, 2, None, 3)
    command = ["split", "-d", "40", "-o", "41", "--labelled", "2", "--seed", "3"]
    assert main([*command, "--held-out", "1"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert not split("40", 41, 2, seed=3, held_out=1).is_new
