"""Rounds of distillation: their commands, refused options, and two rounds on the phantom."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.pseudo_labels.label_folders import locate_pool_labels
from semi_nnunet.pseudo_labels.rounds import average_test_dice
from semi_nnunet.runs import commands
from semi_nnunet.util.files import read_json, write_json
from tests.conftest import no_processes
from tests.runs.parsing import parse_command

NAMES = ["Dataset077_Tiny_labels_1Distilled", "Dataset078_Tiny_labels_1DistilledRound2"]
MODEL = "SemiBaselineTrainer__nnUNetPlans__2d"


def round_words(raw: Path, pool, *more: str) -> list[str]:
    words = [
        "pseudo-dataset",
        "-d",
        raw.name,
        "--new-id",
        "77",
        "-m",
        pool.names[0],
        "--rounds",
        "2",
    ]
    words += ["--target", "SemiBaselineTrainer", "--device", "cpu", "-np", "1"]
    return replace_options(words, *more)


def replace_options(words: list[str], *more: str) -> list[str]:
    """Append options to a command; they replace those of the same name."""
    remaining, is_replaced = [], False
    for word in words:
        if word.startswith("-"):
            is_replaced = word in more
        if not is_replaced:
            remaining.append(word)
    return [*remaining, *more]


def list_stages(out: str) -> list[str]:
    return [line.split(": ")[1] for line in out.splitlines() if line.startswith("# round")]


@pytest.fixture
def in_this_process(monkeypatch) -> None:
    """Our verbs start no process: they are imported once."""
    run_verb = commands.run_verb
    monkeypatch.setattr(
        commands,
        "run_verb",
        lambda words: (
            main([*map(str, words[1:])]) if words[0] == "semi_nnunet" else run_verb(words)
        ),
    )


def test_a_dry_run_prints_commands_and_touches_nothing(raw, pool, capsys):
    files = sorted(raw.parents[1].rglob("*"))
    more = ("--seeds", "2", "--keep", "0.5", "1", "--views", "flips", "--confidence", "0.6")
    assert main(round_words(raw, pool, *more, "--dry-run")) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert sorted(raw.parents[1].rglob("*")) == files
    assert [" ".join(words[:2]) for words in lines] == [
        *("semi_nnunet pseudo-dataset", "semi_nnunet preprocess", "semi_nnunet crossval"),
    ] * 2
    first, prepare, train, second, _, _ = map(parse_command, lines)
    assert (first.models, first.keep, first.new_id) == ([pool.names[0]], [0.5], 77)
    assert second.models == [
        f"{NAMES[0]}/{MODEL}",
        f"{NAMES[0]}/{MODEL.replace('Plans', 'Plans_seed1')}",
    ]
    assert (second.dataset, second.keep, second.new_id) == (raw.name, [1.0], 78)
    assert first.new_name == NAMES[0][11:] and second.new_name == NAMES[1][11:]
    for parsed in (first, second):
        assert (parsed.views, parsed.confidence, parsed.target) == (["flips"], 0.6, None)
        assert (parsed.target_plans, parsed.target_configuration) == ("nnUNetPlans", "2d")
    assert prepare.skip_bad  # images equal to pseudo-labelled ones
    assert (train.folds, train.seeds, train.plans) == ([*"01234"], 2, "nnUNetPlans")


def test_rounds_compare_with_all_earlier_rounds(raw, pool, tmp_path, capsys):
    pools = [str(locate_pool_labels(raw.with_name(name))) for name in NAMES]

    def parsed_scores(*more: str) -> list:
        more = ("--rounds", "3", "--score", "change", "--keep", "0.9", "--dry-run", *more)
        assert main(round_words(raw, pool, *more)) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        parsed = [parse_command(words) for words in lines if words[1] == "pseudo-dataset"]
        return [(step.score, list(step.keep), list(step.before)) for step in parsed]

    assert (
        parsed_scores()
        == [
            ("entropy", [1.0], []),  # there is nothing to compare with
            ("change", [0.9], pools[:1]),
            ("change", [0.9], pools),
        ]
    )
    older = tmp_path / "older"
    (older / "labels").mkdir(parents=True)
    first, second, _ = parsed_scores("--before", str(older))
    assert first == ("change", [0.9], [str(older)]) and second[2] == [str(older), pools[0]]


@pytest.mark.parametrize(
    ("more", "keyword"),
    [
        (["--target", "SemiBaselinTrainer"], "did you mean 'SemiBaselineTrainer'?"),
        (["--target", "nnUNetTrainer_NoMirroring"], "did you mean 'nnUNetTrainerNoMirroring'?"),
        (
            ["--target", "SemiDistillationTrainer", "--keep", "0.5"],
            "taught by SemiMeanTeacherTrainer",
        ),
        (["--target-plans", "nnUNetPlan"], "did you mean 'nnUNetPlans'?"),
        (["--target-configuration", "2D"], "did you mean '2d'?"),
        (["--target-folds", "5"], "there are 5 folds"),
        (["--keep", "1", "1", "1"], "2 rounds, got 3"),
        (["--keep", "0.5", "-1"], "got -1"),
        (["--score", "disagreement"], "-m is one"),
        (["--score", "disagreement"], "--seeds 2, or --score entropy"),
        (["--before", "gone"], "got entropy"),
        (["--score", "change", "--before", "gone"], "gone: has no"),
        (["--target", "SemiMeanTeacherTrainer"], "no unlabelled image"),
        (
            ["--target", "SemiMeanTeacherTrainer", "--score", "change", "--keep", "0.5"],
            "first round",
        ),
        (["--seeds", "0"], "--seeds:"),
        (["--new-id", "999"], "got 999 to 1000"),
    ],
)
def test_mistakes_are_reported_before_any_work(raw, pool, capsys, more, keyword):
    files = sorted(raw.parents[1].rglob("*"))
    assert main(round_words(raw, pool, *more)) == 2
    assert keyword in capsys.readouterr().err
    assert sorted(raw.parents[1].rglob("*")) == files


def test_options_of_the_target_need_a_target(raw, pool, capsys):
    words = ["pseudo-dataset", "-d", raw.name, "--new-id", "77", "-m", pool.names[0]]
    assert main([*words, "--rounds", "2", "--target-folds", "0", "--dry-run"]) == 2
    assert capsys.readouterr().err.count("add --target TRAINER") == 3


def test_numbers_of_all_rounds_must_be_free(raw, pool, tmp_path, capsys):
    (tmp_path / "preprocessed" / "Dataset078_Other").mkdir()
    assert main(round_words(raw, pool)) == 2
    assert "Dataset078_Other" in capsys.readouterr().err
    (tmp_path / "preprocessed" / "Dataset078_Other").rmdir()
    (raw.parent / NAMES[1]).mkdir()
    assert main(round_words(raw, pool)) == 2
    assert f"{NAMES[1]} exists already" in capsys.readouterr().err


@pytest.mark.slow
def test_two_rounds_are_run_and_continued(raw, pool, tmp_path, monkeypatch, capfd, in_this_process):
    for folder in ("imagesTs", "labelsTs"):  # else predicted and measured in every round
        shutil.rmtree(raw / folder)
    words = round_words(raw, pool, "--target-folds", "all", "--keep", "0.5", "1")
    whole, written = commands.run_verb, tmp_path / "raw"

    def without_training(number: str):
        return lambda words: 1 if "crossval" in words and number in words else whole(words)

    def times(pattern: str) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.glob(pattern)}

    with monkeypatch.context() as patch, no_processes():
        patch.setattr(commands, "run_verb", without_training("77"))
        assert main(words) == 2
        assert list_stages(capfd.readouterr().out) == ["label", "preprocess", "train"]
        labels = times(f"preprocessed/{NAMES[0]}/pseudo_labels/labels/*")
        patch.setattr(commands, "run_verb", without_training("78"))
        assert main(words) == 2
        captured = capfd.readouterr()
        assert list_stages(captured.out) == ["label", "preprocess", "train"] * 2
        assert "round 2 of 2: train failed" in captured.err
    assert times(f"preprocessed/{NAMES[0]}/pseudo_labels/labels/*") == labels and len(labels) == 4
    trained = times(f"results/{NAMES[0]}/{MODEL}/fold_all/checkpoint_final.pth")
    assert main(words) == 0
    assert list_stages(capfd.readouterr().out) == ["label", "preprocess", "train"] * 2
    assert times(f"results/{NAMES[0]}/{MODEL}/fold_all/checkpoint_final.pth") == trained != {}
    for name, count in zip(NAMES, (2, 4), strict=True):
        record = read_json(written / name / "distil.json")
        assert record["source"] == raw.name and len(record["labelled"]) == 5
        assert len(record["uncertainty"]) == count
        settings = read_json(tmp_path / "results" / name / MODEL / "fold_all/semi_settings.json")
        assert settings["settings"]["epochs"]["value"] == 4  # the base's
        assert len(settings["cases"]["labelled"]) == 5 + count
    assert [model_record["model"] for model_record in record["models"]] == [f"{NAMES[0]}/{MODEL}"]
    plans = [read_json(tmp_path / "preprocessed" / name / "nnUNetPlans.json") for name in NAMES]
    base = read_json(pool.models[0].folder / "plans.json")
    assert plans[0]["configurations"] == plans[1]["configurations"] == base["configurations"]


@pytest.mark.slow
def test_a_stock_nnunet_trainer_learns_from_the_pseudo_labels(
    raw, pool, tmp_path, capfd, in_this_process
):
    for folder in ("imagesTs", "labelsTs"):
        shutil.rmtree(raw / folder)
    words = [
        "pseudo-dataset",
        "-d",
        raw.name,
        "--new-id",
        "77",
        "-m",
        pool.names[0],
        "--device",
        "cpu",
    ]
    words += ["--target", "nnUNetTrainer_1epoch", "--target-folds", "all", "-np", "1"]
    with no_processes():
        assert main(words) == 0, capfd.readouterr().err
    (fold,) = tmp_path.glob("results/*077*/nnUNetTrainer_1epoch__nnUNetPlans__2d/fold_all")
    assert (fold / "checkpoint_final.pth").is_file()
    predicted = {path.name for path in (fold / "validation").glob("*.nii.gz")}
    assert len(predicted) == 5 + 4  # fold all validates what it was trained on


def test_a_configuration_that_does_not_exist_is_refused_without_a_target_too(raw, pool, capsys):
    words = ["pseudo-dataset", "-d", raw.name, "--new-id", "77", "-m", pool.names[0]]
    assert main([*words, "--target-configuration", "3d_fulres"]) == 2
    assert "did you mean '3d_fullres'?" in capsys.readouterr().err


def test_a_cascade_is_distilled_into_a_cascade(cascade_raw, cascade, capsys):
    words = ["pseudo-dataset", "-d", cascade_raw.name, "--new-id", "77", "-m", cascade.names[0]]
    words += ["--target", "SemiBaselineTrainer", "--rounds", "2", "--keep", "0.5", "--dry-run"]
    assert main(words) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    first, prepare, train, again, *_ = map(parse_command, lines)
    stages = ["3d_lowres", "3d_cascade_fullres"]
    assert prepare.configurations == train.configurations == stages
    assert first.target_configuration == stages[1] and train.folds == ["0", "1"]
    assert [Path(model).name.split("__")[-1] for model in again.models] == stages[1:]
    stock = replace_options(words, "--target", "nnUNetTrainer", "--target-folds", "all")
    assert main(stock) == 0  # it validates all cases


@pytest.mark.parametrize(
    ("more", "keyword"),
    [
        (["--target", "nnUNetTrainer"], "--target SemiBaselineTrainer, or --target-folds all"),
        (["--target-folds", "0"], "every fold, asked for are 0"),
        (["--target-folds", "0", "all"], "every fold, asked for are 0 all"),
        (["--target-folds", "0", "1", "all"], "every fold, asked for are 0 1 all"),
    ],
)
def test_a_cascade_that_could_not_be_trained_is_refused(
    cascade_raw, cascade, capsys, more, keyword
):
    words = ["pseudo-dataset", "-d", cascade_raw.name, "--new-id", "77", "-m", cascade.names[0]]
    words += ["--target", "SemiBaselineTrainer", "--keep", "0.5"]
    assert main(replace_options(words, *more)) == 2
    assert keyword in capsys.readouterr().err


def test_the_next_commands_of_a_cascade_train_all_its_stages(cascade_raw, cascade, capfd):
    words = ["pseudo-dataset", "-d", cascade_raw.name, "--new-id", "77", "-m", cascade.names[0]]
    with no_processes():
        assert main([*words, "--device", "cpu", "-np", "1", "--target-plans", "nnUNetPlans"]) == 0
    output = capfd.readouterr().out
    stages = "-c 3d_lowres 3d_cascade_fullres"
    assert f"semi_nnunet preprocess -d 77 -p nnUNetPlans {stages}" in output
    crossval = f"semi_nnunet crossval -d 77 {stages} -tr SemiBaselineTrainer -f 0 1"
    assert crossval in output


def test_the_test_cases_of_all_models_and_folds_are_averaged(tmp_path):
    models = [str(tmp_path / f"Trainer__plans_seed{seed}__2d") for seed in (0, 1)]
    for seed, model in enumerate(models):
        for fold in (0, 1):
            folder = Path(model) / f"fold_{fold}"
            (folder / "test").mkdir(parents=True)
            write_json(folder / "test/metrics.json", {"foreground_mean": {"dice": seed + fold}})
            (folder / "checkpoint_final.pth").touch()
        plans = {"plans_name": f"plans_seed{seed}", "configurations": {"2d": {}}}
        plans["image_reader_writer"] = "SimpleITKIO"
        write_json(Path(model) / "plans.json", plans)
        labels = {"background": 0, "organ": 1}
        description = {"labels": labels, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
        write_json(Path(model) / "dataset.json", description)
    assert average_test_dice(models) == 1.0
    last = Path(models[1]) / "fold_1/test/metrics.json"
    write_json(last, {"foreground_mean": {"dice": None}})  # no case shows any foreground
    assert average_test_dice(models) is None
    last.unlink()
    assert average_test_dice(models) is None
