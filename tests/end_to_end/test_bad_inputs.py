"""Every bad input that we promise to handle: the command, and its message."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semi_nnunet.discovery.register import TRAINERS_FOLDER
from semi_nnunet.verify import file_bytes
from tests.data.raw_datasets import make, truncate, voxels, write
from tests.deploy.test_install import MODEL
from tests.end_to_end.spoiling import (
    LABEL_A,
    LABEL_B,
    NAME,
    ONE_LABELLED,
    PREPROCESS,
    A,
    Bench,
    Spoil,
    T,
    U,
    V,
    Words,
    as_of_old,
    both,
    continued,
    copied,
    dangling,
    described,
    each,
    flipped,
    full_of,
    holding,
    hostile_model,
    hostile_zip,
    html,
    in_format,
    in_several_places,
    install,
    labelled_by_it,
    labelled_with,
    listed_ids,
    no_bytes,
    of_4d,
    of_two_channels,
    of_vectors,
    on_grid,
    other_checkpoint,
    planned,
    pseudo_labelled,
    renamed,
    run,
    seed_of,
    spaced,
    truncated,
    unreadable,
    with_channels,
    without,
    without_place,
    zip_over_a_model,
)

PAGE = Path(__file__).resolve().parents[2] / "docs/reliability.md"


def preprocess(bench: Bench) -> tuple[str, ...]:
    return PREPROCESS


@dataclass(frozen=True)
class Refused:
    """A command that ends with an error.

    Args:
        spoil: what is done to the data set.
        says: file or case -> rule and value that the error names; nothing else is named.
        words: of the command.
        is_planned: it is known after planning alone; no case is preprocessed.
    """

    spoil: Spoil
    says: Mapping[str, str]
    words: Words = preprocess
    is_planned: bool = False


@dataclass(frozen=True)
class Works:
    """A command that does its work.

    Args:
        spoil: what is done to the data set.
        ready: how many labelled and unlabelled cases are then preprocessed.
        says: warnings.
    """

    spoil: Spoil
    ready: tuple[int, int] = (2, 2)
    says: tuple[str, ...] = ()


# ---- the table: every row of the reliability page ----

NO_REAL_SPACING = "spacing must be finite and above 0, got "
WHOLE = r"label values must be whole, from 0, and one of \[0, 1\], got "
WARNED = "WARNING: "
TWO_ORGANS = {"background": 0, "organ": 1, "other": 2}

ROWS: dict[str, tuple[Refused | Works, ...]] = {
    "truncated": (
        Refused(
            each(a=truncated(0.5), u=truncated(0.99), v=truncated(-8)),
            dict.fromkeys([A, U, V], "is truncated: the compressed stream ends early"),
        ),
    ),
    "flipped_bit": (Refused(each(u=flipped), {U: "is damaged: "}),),
    "no_bytes": (Refused(each(u=no_bytes), {U: r"is empty \(0 bytes\)"}),),
    "text_named_as_image": (
        Refused(
            each(u=html),
            {U: "is not a NIfTI file: it begins with b'<!DOCTYPE html>"},
        ),
    ),
    "absent_or_dangling_link": (
        Refused(
            each(label_a=Path.unlink, u=dangling),
            {LABEL_A: "the file is absent", U: "is a link to 'nowhere.nii.gz', which does not ex"},
        ),
    ),
    "unreadable": (Refused(each(u=unreadable), {U: "cannot be opened: Permission denied"}),),
    "one_nan_voxel": tuple(
        Refused(
            in_format(ending, lambda b, e=ending: holding(np.nan)(b.raw / f"imagesUn/u_0000{e}")),
            {f"imagesUn/u_0000{ending}": "must be finite numbers in float32, got 1 NaN and 0 Inf"},
        )
        for ending in (".nii.gz", ".mha", ".nrrd")
    ),
    "one_infinite_voxel": (
        Refused(
            each(a=holding(np.inf), u=holding(-np.inf)),
            dict.fromkeys([A, U], "must be finite numbers in float32, got 0 NaN and 1 Inf"),
        ),
    ),
    "huge_values": (
        Refused(each(u=holding(1e38)), {U: r"values must be within \+-1e\+30, got \d+ to 1e\+38"}),
    ),
    "all_zero_image": (
        Refused(each(u=full_of(0), v=full_of(0)), dict.fromkeys([U, V], "all voxels are 0")),
    ),
    "constant_image": (Refused(each(u=full_of(7)), {U: "all voxels are 7"}),),
    "missing_channel": (
        Refused(
            with_channels(without("imagesTr/a_0001.nii.gz", U)),
            {
                "imagesTr/a_0001.nii.gz": "this channel is missing: dataset.json declares 2",
                U: "this channel is missing: dataset.json declares 2",
            },
        ),
    ),
    "extra_channel_or_second_file": (
        Refused(
            lambda bench: (
                write(bench.raw / "imagesTs/t_0001.nii.gz", voxels(7)),
                write(bench.raw / "imagesTr/a_0000.nrrd", voxels(7)),
                write(bench.raw / "imagesUn/u_0000.nrrd", voxels(7)),
            ),
            {
                "imagesTs/t_0001.nii.gz": "is a channel too many: dataset.json declares 1",
                "imagesTr/a_0000.nrrd": "must end with .nii.gz, .* as a_0000.nii.gz beside it",
                "imagesUn/u_0000.nrrd": "must end with .nii.gz, which dataset.json declares",
            },
        ),
    ),
    "channels_of_different_shape": (
        Refused(
            with_channels(lambda b: on_grid(shape=(6, 7, 9))(b.raw / "imagesUn/u_0001.nii.gz")),
            {"imagesUn/u_0001.nii.gz": r"differs: shape \(6, 7, 9\) instead of \(6, 7, 8\)"},
        ),
    ),
    "label_of_another_shape": (
        Refused(
            each(label_a=on_grid(shape=(6, 7, 9))),
            {LABEL_A: r"must lie on the voxels of .*shape \(6, 7, 9\) instead of \(6, 7, 8\)"},
        ),
    ),
    "label_of_another_spacing": (
        Refused(
            each(label_a=on_grid(spacing=(1.0, 1.1, 2.0))),
            {LABEL_A: r"has spacing \(2, 1.1, 1\) instead of \(2, 1, 1\)"},
        ),
    ),
    "label_elsewhere_or_turned": (
        Refused(
            each(
                label_a=on_grid(origin=(505.0, 6.0, 7.0)),
                label_b=on_grid(direction=(-1.0, 0, 0, 0, -1, 0, 0, 0, 1)),
            ),
            {
                LABEL_A: r"has origin \(505, 6, 7\) instead of \(5, 6, 7\)",
                LABEL_B: r"has direction \(-1, 0, 0, 0, -1, .* instead of \(1, 0, 0, 0, 1",
            },
        ),
    ),
    "impossible_spacing": (
        Refused(
            each(u=spaced(0, 1, 1), v=spaced(1, -2, 1), t=spaced(1e-6, 1, 1)),
            {
                U: NO_REAL_SPACING + r"\(0, 1, 1\)",
                V: NO_REAL_SPACING + r"\(1, -2, 1\)",
                T: r"spacing must be at least 0.0001, got \(1e-06, 1, 1\)",
            },
        ),
        Refused(
            each(u=on_grid(spacing=(1000.0, 1000.0, 1000.0))),
            {U: r"resampled to \(3000, 7000, 8000\) voxels; .* needs \d{4}.\d GiB of memory"},
            is_planned=True,
        ),
    ),
    "no_qform_and_sform": (
        Works(
            each(u=without_place),
            says=(f"{WARNED}1 of 2 unlabelled images differs", "u: .*qform and sform are 0"),
        ),
    ),
    "4d_or_vector_image": (
        Refused(
            each(u=of_4d, v=of_vectors),
            {
                U: r"holds 5 channels \(4-D, colour or alpha\), at most 1 wanted",
                V: r"must hold one number per voxel in 2 or 3 dimensions, got \(6, 7, 8, 3\)",
            },
        ),
    ),
    "undeclared_label": (
        Refused(
            each(label_a=labelled_with(5)),
            {LABEL_A: r"must be declared in dataset.json \(\[0, 1\]\), got 5"},
        ),
    ),
    "fraction_minus_or_nan_in_label": (
        Refused(
            each(label_a=labelled_with(0.5), label_b=labelled_with(-1)),
            {LABEL_A: WHOLE + "0.5", LABEL_B: WHOLE + "-1"},
        ),
        Refused(
            each(label_a=labelled_with(np.nan)), {LABEL_A: "must be finite .*got 1 NaN and 0 Inf"}
        ),
    ),
    "empty_label": (
        Works(
            each(label_a=full_of(0)),
            says=(f"{WARNED}1 of 2 labels show no class, all voxels are 0: a. .*kept.* Fix: ",),
        ),
    ),
    "case_in_two_sets": (
        Refused(
            in_several_places,
            {
                "labelsUn/u.nii.gz": "is a label of case 'u', which is unlabelled",
                "imagesUn": "case '[at]' is unlabelled and also a (labelled|test) case",
                "imagesUn: case v": "its voxels equal those of the labelled case 'b', which it",
            },
        ),
        Works(
            copied(A, T),
            says=(f"{WARNED}the voxels of 1 of 1 test images equal .*: t .labelled: a.*Fix: ",),
        ),
    ),
    "broken_dataset_json": (
        Refused(
            described(channel_names=None, file_ending=None),
            {"dataset.json": "lacks the key '(channel_names|file_ending)'"},
        ),
        Refused(
            described(numTraining=7),
            {"dataset.json": "must be the number of labelled cases, 2, got 7"},
        ),
        Refused(
            lambda bench: (bench.raw / "dataset.json").write_text('{"labels": '),
            {"dataset.json": "is not JSON: Expecting value"},
        ),
        Refused(
            described(labels={"background": 0, "organ": 1, "other": 3}),
            {"dataset.json": r"the labels must be consecutive, got \[0, 1, 3\]"},
        ),
    ),
    "annotated_otherwise": (
        Refused(
            described(labels=TWO_ORGANS, annotated={"a": ["other", "liver"]}),
            {"dataset.json": r"must name classes of 'labels' \(organ, other\), got liver"},
        ),
        Refused(
            described(labels=TWO_ORGANS, annotated={"a": ["organ"], "nobody": ["organ"]}),
            {"dataset.json": "'annotated' names 'nobody', which is no case"},
        ),
        Refused(
            described(labels=TWO_ORGANS, annotated={"a": ["other"]}),
            {LABEL_A: "none of the classes that 'annotated' .* leaves out for its case, got 1"},
        ),
        Works(
            described(labels=TWO_ORGANS, annotated={"a": ["organ"]}),
            says=("WARNING: labelsTr: no case shows other",),
        ),
    ),
    "one_slice_or_smaller_than_the_patch": (
        Works(
            each(
                u=on_grid(7, (1, 7, 8)),
                v=on_grid(8, (2, 2, 2)),
                b=on_grid(9, (1, 7, 8)),
                label_b=on_grid(9, (1, 7, 8)),
            ),
            says=(f"{WARNED}1 of 2 unlabelled images differs",),
        ),
    ),
    "strange_case_ids": (
        Works(both(renamed("imagesTr/a", "Ärztin 肝", True), renamed("imagesUn/u", "my café"))),
        Refused(
            renamed("imagesUn/u", "u\nu"),
            {r"case 'u\nu' (unlabelled)": "a case id must be printable and have no path separat"},
        ),
        Refused(
            listed_ids("../a"),
            {"case '../a' (labelled)": "a case id must be printable and have no path separators"},
        ),
    ),
    "too_few_cases": (
        Refused(without("imagesUn"), {"imagesUn": "the folder is absent"}),
        Refused(without(U, V), {"imagesUn": "holds no image CASE_0000.nii.gz"}),
        Works(without(V), (2, 1)),
        Works(
            ONE_LABELLED,
            (1, 2),
            (f"{WARNED}a fold needs at least 2 labelled cases, got 1 .a.. Fix: ", "2d all -tr"),
        ),
    ),
    "channels_unlike_the_plans": (
        Refused(
            lambda bench: (
                run(PREPROCESS),
                write(bench.raw / "imagesUn/u_0001.nii.gz", voxels(7)),
            ),
            {"imagesUn/u_0001.nii.gz": "is a channel too many: dataset.json declares 1 channels"},
        ),
        Refused(
            planned(of_two_channels),
            {"nnUNetPlans.json": "must have 1 channels, as dataset.json declares, got 2"},
        ),
    ),
    "plans_of_another_version_or_data_set": (
        Refused(
            planned(lambda plans: {**plans, "dataset_name": "Dataset002_Other"}),
            {"nnUNetPlans.json": f"must be of {NAME}, got plans of Dataset002_Other"},
        ),
        Refused(
            planned(lambda plans: {"plans_per_stage": {}}),
            {"nnUNetPlans.json": "lacks dataset_name, plans_name, configurations, "},
        ),
        Refused(
            planned(lambda plans: [plans]), {"nnUNetPlans.json": "must be an object, got list"}
        ),
        Refused(
            planned(as_of_old),
            {"nnUNetPlans.json": "configuration (2d|3d_fullres) does not fit this nnU-Net"},
        ),
        Refused(
            planned(lambda plans: {**plans, "image_reader_writer": "NewIO"}),
            {"nnUNetPlans.json": "must name a reader of this nnU-Net, got 'NewIO'"},
        ),
    ),
    "checkpoint_of_another_training": (
        Refused(
            other_checkpoint(trainer="SemiBaselineTrainer"),
            {"trainer": "training has 'SemiMeanTeacherTrainer', the checkpoint 'SemiBaselineTr"},
            continued,
        ),
        Refused(
            other_checkpoint(configuration="3d_fullres"),
            {
                "configuration": "this training has '2d', the checkpoint '3d_fullres'",
                "architecture": "this training has ",
                "patch size": "this training has ",
            },
            continued,
        ),
        Refused(
            other_checkpoint(labels={"background": 0, "one": 1}),
            {"classes or regions": "this training has 4, the checkpoint 2"},
            continued,
        ),
    ),
    "malicious_checkpoint": (
        Refused(
            hostile_model,
            {"checkpoint_final.pth": "holds more than tensors and plain .* can execute code"},
            labelled_by_it,
        ),
    ),
    "malicious_zip": (
        Refused(
            hostile_zip,
            {
                "../outside.txt": "must lie below the folder of its model",
                "/tmp/outside.txt": "must lie below the folder of its model",
                f"{MODEL}/link": "must be a file, got a link",
                f"{MODEL}/notes.txt": "must not grow more than 100 times .*got 20,971,520 bytes",
            },
            install,
        ),
        Refused(zip_over_a_model, {MODEL: "holds another model already"}, install),
    ),
    "pseudo_label_wrong": (
        Refused(
            pseudo_labelled(on_grid(spacing=(1.0, 1.0, 3.0))),
            {"labelsTr/u.nii.gz": r"has spacing \(3, 1, 1\) instead of \(2, 1, 1\)"},
        ),
        Works(pseudo_labelled(full_of(0)), (3, 1), (f"{WARNED}1 of 3 labels show no class.*: u",)),
    ),
}


# ---- the test of the table ----


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Bench:
    """A fresh data set in folders of its own; the row of checkpoints has a phantom besides."""
    maker: Any = None
    if "checkpoint_of_another_training" in request.node.name:
        maker = request.getfixturevalue("make_trainer")
        maker.dataset = request.getfixturevalue("prepared_dataset")("labels", 1)
    else:
        for name in ("raw", "preprocessed", "results"):
            (tmp_path / name).mkdir()
            monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    made = Bench(tmp_path, maker)
    make(made.raw)
    monkeypatch.setenv("nnUNet_extTrainer", str(TRAINERS_FOLDER))
    monkeypatch.setattr(file_bytes, "open", open_by_mode, raising=False)
    return made


def open_by_mode(path: Any, *arguments: Any) -> Any:
    """Let file modes count, as for normal users; root may read everything."""
    if not os.stat(path).st_mode & 0o444:
        raise PermissionError(13, "Permission denied", str(path))
    return open(path, *arguments)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", ROWS)
def test_a_bad_input_is_reported_or_handled(
    row: str, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    for one in ROWS[row]:
        shutil.rmtree(bench.raw)
        shutil.rmtree(bench.preprocessed, ignore_errors=True)
        make(bench.raw)
        one.spoil(bench)
        capsys.readouterr()
        if isinstance(one, Refused):
            require_refused(one, bench, capsys)
        else:
            require_works(one, capsys)
    assert not (bench.folder / "executed").exists()


def require_refused(one: Refused, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert an error that names exactly the spoilt files, and no output."""
    before, words = bench.outcome(), one.words(bench)
    assert run(words) == (1 if words[0] == "nnUNetv2_train" else 2)
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    if one.is_planned:
        assert not list(bench.preprocessed.rglob("*.b2nd"))
    else:
        assert bench.outcome() == before
    warning_of_outliers = re.compile(rf"^{WARNED}.*?^Fix: [^\n]*$", re.DOTALL | re.MULTILINE)
    require_named(one.says, warning_of_outliers.sub("", said.err))


def require_named(says: Mapping[str, str], error: str) -> None:
    """Assert that an error lists exactly the expected problems, each with a fix."""
    lines = [line.strip() for line in error.splitlines() if line.startswith("  ")]
    left = list(lines)
    for where, text in says.items():
        problem = re.compile(rf"(\S*/)?{re.escape(where)}: .*{text}.*\. Fix: .+")
        found = [line for line in lines if problem.fullmatch(line)]
        assert found, f"{where}: {text} is not told in\n{error}"
        left = [line for line in left if line not in found]
    assert not left, f"more is told: {left}"


def require_works(one: Works, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that a command succeeds with exactly the expected warnings."""
    assert run(PREPROCESS) == 0
    said = "".join(capsys.readouterr())
    labelled, unlabelled = one.ready
    counts = f"{labelled} labelled and {unlabelled} unlabelled cases are ready"
    assert f"2d: {counts}" in said and f"3d_fullres: {counts}" in said
    for text in one.says:
        assert re.search(text, said), (text, said)
    assert said.count(WARNED) == sum(text.startswith(WARNED) for text in one.says)


# ---- all at once ----

IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "c01": (truncated(0.5), "is truncated"),
    "c02": (flipped, "is damaged"),
    "c03": (no_bytes, "is empty"),
    "c04": (html, "is not a NIfTI file"),
    "c05": (dangling, "is a link to"),
    "c06": (unreadable, "cannot be opened"),
    "c07": (holding(np.nan), "1 NaN"),
    "c08": (holding(np.inf), "1 Inf"),
    "c09": (holding(1e38), r"within \+-1e\+30"),
    "c10": (full_of(0), "all voxels are 0"),
    "c11": (full_of(7), "all voxels are 7"),
    "c12": (spaced(0, 1, 1), NO_REAL_SPACING),
    "c13": (of_4d, "holds 5 channels"),
    "c14": (of_vectors, "must hold one number per voxel"),
}


def test_all_bad_inputs_are_reported_together(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    says = {}
    for case, (spoil, text) in IMAGES.items():
        path = bench.raw / f"imagesUn/{case}_0000.nii.gz"
        write(path, voxels(seed_of(path)))
        spoil(path)
        says[f"imagesUn/{path.name}"] = text
    truncate(bench.raw / A, 0.5)
    labelled_with(5)(bench.raw / LABEL_A)
    on_grid(spacing=(1.0, 1.1, 2.0))(bench.raw / LABEL_B)
    in_several_places(bench)
    write(bench.raw / "imagesTs/t_0001.nii.gz", voxels(7))
    write(bench.raw / "imagesTr/b_0000.nrrd", voxels(7))
    write(bench.raw / "imagesUn/u_0001.nii.gz", voxels(7))
    renamed("imagesUn/u", "u\nu")(bench)
    says |= {
        A: "is truncated",
        LABEL_A: "must be declared",
        LABEL_B: "has spacing",
        "imagesUn": "is unlabelled and also a (labelled|test) case",
        "imagesUn: case v": "its voxels equal those of the labelled case 'b'",
        "imagesTs/t_0001.nii.gz": "is a channel too many",
        "imagesTr/b_0000.nrrd": "must end with .nii.gz",
        "imagesUn/u_0000.nii.gz": "this channel is missing",
        "imagesUn/u_0001.nii.gz": "is a channel too many",
        "labelsUn/u.nii.gz": "is a label of case 'u'",
        r"case 'u\nu' (unlabelled)": "must be printable",
    }
    require_refused(Refused(lambda bench: None, says), bench, capsys)


def test_the_page_lists_every_row() -> None:
    _, _, section = PAGE.read_text(encoding="utf-8").partition("## Bad input is named")
    section, _, _ = section.partition("\n## ")
    listed = re.findall(r"\| `(\w+)` \|$", section, re.MULTILINE)
    assert listed == list(ROWS)
    assert len(ROWS) == 35
