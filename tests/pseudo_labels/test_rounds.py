"""Rounds of distillation: commands as they are typed, what is refused, and two on the phantom."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from semi_nnunet.cli.main import build_parser, main
from semi_nnunet.pseudo_labels.places import labelled_pool
from semi_nnunet.pseudo_labels.rounds import dice_of_test_cases
from semi_nnunet.runs import commands
from semi_nnunet.util.files import read_json, write_json
from tests.conftest import no_processes

NAMES = ["Dataset077_Tiny_labels_1Distilled", "Dataset078_Tiny_labels_1DistilledRound2"]
MODEL = "SemiBaselineTrainer__nnUNetPlans__2d"


def rounds(raw: Path, pool, *more: str) -> list[str]:
    words = ["distil", "-d", raw.name, "-o", "77", "--base", pool.names[0], "--rounds", "2"]
    return [*words, "--target", "SemiBaselineTrainer", "--device", "cpu", "-np", "1", *more]


def stages(out: str) -> list[str]:
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
    before = sorted(raw.parents[1].rglob("*"))
    more = ("--seeds", "2", "--keep", "0.5", "1", "--views", "flips", "--confidence", "0.6")
    assert main(rounds(raw, pool, *more, "--dry-run")) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert sorted(raw.parents[1].rglob("*")) == before
    assert [" ".join(words[:2]) for words in lines] == [
        *("semi_nnunet distil", "semi_nnunet preprocess", "semi_nnunet crossval"),
    ] * 2
    first, prepare, train, second, _, _ = (build_parser(w[1]).parse_args(w[1:]) for w in lines)
    assert (first.base, first.keep, first.new_id) == ([pool.names[0]], [0.5], 77)
    assert second.base == [
        f"{NAMES[0]}/{MODEL}",
        f"{NAMES[0]}/{MODEL.replace('Plans', 'Plans_seed1')}",
    ]
    assert (second.dataset, second.keep, second.new_id) == (raw.name, [1.0], 78)
    assert first.name == NAMES[0][11:] and second.name == NAMES[1][11:]
    for one in (first, second):
        assert (one.views, one.confidence, one.target) == (["flips"], 0.6, None)
        assert (one.target_plans, one.target_configuration) == ("nnUNetPlans", "2d")
    assert prepare.skip_bad  # images equal to pseudo-labelled ones
    assert (train.folds, train.seeds, train.plans) == ([*"01234"], 2, "nnUNetPlans")


def test_rounds_compare_with_all_before_them(raw, pool, tmp_path, capsys):
    pools = [str(labelled_pool(raw.with_name(name))) for name in NAMES]

    def asked(*more: str) -> list:
        more = ("--rounds", "3", "--score", "change", "--keep", "0.9", *more)
        assert main([*rounds(raw, pool, *more), "--dry-run"]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        parsed = [build_parser(w[1]).parse_args(w[1:]) for w in lines if w[1] == "distil"]
        return [(one.score, one.keep, one.before) for one in parsed]

    assert (
        asked()
        == [
            ("entropy", [1.0], []),  # there is nothing to compare with
            ("change", [0.9], pools[:1]),
            ("change", [0.9], pools),
        ]
    )
    older = tmp_path / "older"
    (older / "labels").mkdir(parents=True)
    first, second, _ = asked("--before", str(older))
    assert first == ("change", [0.9], [str(older)]) and second[2] == [str(older), pools[0]]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--target", "SemiBaselinTrainer"], "did you mean 'SemiBaselineTrainer'?"),
        (["--target", "nnUNetTrainer_NoMirroring"], "did you mean 'nnUNetTrainerNoMirroring'?"),
        (
            ["--target", "SemiDistillationTrainer", "--keep", "0.5"],
            "is taught by SemiMeanTeacherTrainer of the same data set, which has none",
        ),
        (["--target-plans", "nnUNetPlan"], "did you mean 'nnUNetPlans'?"),
        (["--target-configuration", "2D"], "did you mean '2d'?"),
        (["-f", "5"], "there are 5 folds"),
        (["--keep", "1", "1", "1"], "one for each of the 2 rounds, got 3"),
        (["--keep", "0.5", "-1"], "must be above 0, got -1"),
        (["--score", "disagreement"], "--base is one"),
        (["--score", "disagreement"], "--seeds 2, or --score entropy"),
        (["--before", "gone"], "is for --score change and checkpoints, got entropy"),
        (["--score", "change", "--before", "gone"], "gone: has no folder labels"),
        (["--target", "SemiMeanTeacherTrainer"], "leaves no unlabelled image"),
        (
            ["--target", "SemiMeanTeacherTrainer", "--score", "change", "--keep", "0.5"],
            "--score change, whose first round takes all: leaves no unlabelled image",
        ),
        (["--seeds", "0"], "--seeds: must be 1 or more, got 0"),
        (["-o", "999"], "from 1 to 999, got 999 to 1000"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(raw, pool, capsys, more, says):
    before = sorted(raw.parents[1].rglob("*"))
    assert main(rounds(raw, pool, *more)) == 2
    assert says in capsys.readouterr().err
    assert sorted(raw.parents[1].rglob("*")) == before


def test_what_is_of_the_target_needs_one(raw, pool, capsys):
    words = ["distil", "-d", raw.name, "-o", "77", "--base", pool.names[0]]
    assert main([*words, "--rounds", "2", "-f", "0", "--dry-run"]) == 2
    assert capsys.readouterr().err.count("add --target TRAINER") == 3


def test_numbers_of_all_rounds_must_be_free(raw, pool, tmp_path, capsys):
    (tmp_path / "preprocessed" / "Dataset078_Other").mkdir()
    assert main(rounds(raw, pool)) == 2
    assert "the number 78 is taken by Dataset078_Other" in capsys.readouterr().err
    (tmp_path / "preprocessed" / "Dataset078_Other").rmdir()
    (raw.parent / NAMES[1]).mkdir()
    assert main(rounds(raw, pool)) == 2
    assert f"{NAMES[1]} exists already and was not made by this command" in capsys.readouterr().err


@pytest.mark.slow
def test_two_rounds_are_followed_and_gone_on_with(
    raw, pool, tmp_path, monkeypatch, capfd, in_this_process
):
    for folder in ("imagesTs", "labelsTs"):  # else predicted and measured in every round
        shutil.rmtree(raw / folder)
    words = rounds(raw, pool, "-f", "all", "--keep", "0.5", "1")
    whole, written = commands.run_verb, tmp_path / "raw"

    def without_training(number: str):
        return lambda words: 1 if "crossval" in words and number in words else whole(words)

    def times(pattern: str) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.glob(pattern)}

    with monkeypatch.context() as patch, no_processes():
        patch.setattr(commands, "run_verb", without_training("77"))
        assert main(words) == 2
        assert stages(capfd.readouterr().out) == ["label", "preprocess", "train"]
        labels = times(f"preprocessed/{NAMES[0]}/pseudo_labels/labels/*")
        patch.setattr(commands, "run_verb", without_training("78"))
        assert main(words) == 2
        said = capfd.readouterr()
        assert stages(said.out) == ["label", "preprocess", "train"] * 2
        assert "round 2 of 2: train failed" in said.err
    assert times(f"preprocessed/{NAMES[0]}/pseudo_labels/labels/*") == labels and len(labels) == 4
    trained = times(f"results/{NAMES[0]}/{MODEL}/fold_all/checkpoint_final.pth")
    assert main(words) == 0
    assert stages(capfd.readouterr().out) == ["label", "preprocess", "train"] * 2
    assert times(f"results/{NAMES[0]}/{MODEL}/fold_all/checkpoint_final.pth") == trained != {}
    for name, kept in zip(NAMES, (2, 4), strict=True):
        record = read_json(written / name / "distil.json")
        assert record["source"] == raw.name and len(record["labelled"]) == 5
        assert len(record["uncertainty"]) == kept
        settings = read_json(tmp_path / "results" / name / MODEL / "fold_all/semi_settings.json")
        assert settings["settings"]["epochs"]["value"] == 4  # the base's
        assert len(settings["cases"]["labelled"]) == 5 + kept
    assert [one["model"] for one in record["models"]] == [f"{NAMES[0]}/{MODEL}"]
    plans = [read_json(tmp_path / "preprocessed" / name / "nnUNetPlans.json") for name in NAMES]
    base = read_json(pool.models[0].folder / "plans.json")
    assert plans[0]["configurations"] == plans[1]["configurations"] == base["configurations"]


@pytest.mark.slow
def test_a_trainer_of_nnunet_alone_learns_from_the_pseudo_labels(
    raw, pool, tmp_path, capfd, in_this_process
):
    for folder in ("imagesTs", "labelsTs"):
        shutil.rmtree(raw / folder)
    words = ["distil", "-d", raw.name, "-o", "77", "--base", pool.names[0], "--device", "cpu"]
    words += ["--target", "nnUNetTrainer_1epoch", "-f", "all", "-np", "1"]
    with no_processes():
        assert main(words) == 0, capfd.readouterr().err
    (fold,) = tmp_path.glob("results/*077*/nnUNetTrainer_1epoch__nnUNetPlans__2d/fold_all")
    assert (fold / "checkpoint_final.pth").is_file()
    predicted = {path.name for path in (fold / "validation").glob("*.nii.gz")}
    assert len(predicted) == 5 + 4  # fold all validates what it was trained on


def test_a_configuration_that_does_not_exist_is_refused_without_a_target_too(raw, pool, capsys):
    words = ["distil", "-d", raw.name, "-o", "77", "--base", pool.names[0]]
    assert main([*words, "--target-configuration", "3d_fulres"]) == 2
    assert "did you mean '3d_fullres'?" in capsys.readouterr().err


def test_a_cascade_is_distilled_into_a_cascade(cascade_raw, cascade, capsys):
    words = ["distil", "-d", cascade_raw.name, "-o", "77", "--base", cascade.names[0]]
    words += ["--target", "SemiBaselineTrainer", "--rounds", "2", "--keep", "0.5", "--dry-run"]
    assert main(words) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    first, prepare, train, again, *_ = (build_parser(w[1]).parse_args(w[1:]) for w in lines)
    stages = ["3d_lowres", "3d_cascade_fullres"]
    assert prepare.configurations == train.configurations == stages
    assert first.target_configuration == stages[1] and train.folds == ["0", "1"]
    assert [Path(model).name.split("__")[-1] for model in again.base] == stages[1:]
    assert main([*words, "--target", "nnUNetTrainer", "-f", "all"]) == 0  # it validates all cases


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--target", "nnUNetTrainer"], "--target SemiBaselineTrainer, or -f all"),
        (["-f", "0"], "3d_cascade_fullres needs the predictions of every fold, asked for are 0"),
        (["-f", "0", "all"], "of every fold, asked for are 0 all"),
        (["-f", "0", "1", "all"], "of every fold, asked for are 0 1 all"),
    ],
)
def test_a_cascade_that_could_not_be_trained_is_refused(cascade_raw, cascade, capsys, more, says):
    words = ["distil", "-d", cascade_raw.name, "-o", "77", "--base", cascade.names[0]]
    assert main([*words, "--target", "SemiBaselineTrainer", "--keep", "0.5", *more]) == 2
    assert says in capsys.readouterr().err


def test_what_to_type_for_a_cascade_trains_all_its_stages(cascade_raw, cascade, capfd):
    words = ["distil", "-d", cascade_raw.name, "-o", "77", "--base", cascade.names[0]]
    with no_processes():
        assert main([*words, "--device", "cpu", "-np", "1", "--target-plans", "nnUNetPlans"]) == 0
    said = capfd.readouterr().out
    stages = "-c 3d_lowres 3d_cascade_fullres"
    assert f"semi_nnunet preprocess -d 77 -p nnUNetPlans {stages}" in said
    crossval = f"semi_nnunet crossval -d 77 -p nnUNetPlans {stages} -tr SemiBaselineTrainer -f 0 1"
    assert crossval in said


def test_the_test_cases_of_all_models_and_folds_are_averaged(tmp_path):
    models = [str(tmp_path / f"Trainer__plans_seed{seed}__2d") for seed in (0, 1)]
    for seed, model in enumerate(models):
        for fold in (0, 1):
            folder = Path(model) / f"fold_{fold}"
            (folder / "test").mkdir(parents=True)
            write_json(folder / "test/metrics.json", {"foreground_mean": {"dice": seed + fold}})
            (folder / "checkpoint_final.pth").touch()
        for name in ("plans.json", "dataset.json"):
            write_json(Path(model) / name, {})
    assert dice_of_test_cases(models) == 1.0
    (Path(models[1]) / "fold_1/test/metrics.json").unlink()
    assert dice_of_test_cases(models) is None
