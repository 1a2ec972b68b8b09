"""What would keep a cross-validation from running, found before its first job starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from semi_nnunet.data import annotated_classes, patients
from semi_nnunet.data.layout import unlabelled_folder
from semi_nnunet.data.manifest import Manifest
from semi_nnunet.data.sampling import pseudo_labelled_cases
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.runs.folders import ALL, Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.settings.common import POOL, SemiSettings
from semi_nnunet.settings.overrides import given_settings
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.files import optional_json, read_json


def step_problems(jobs: Sequence[Job], steps: Sequence[str]) -> Iterator[Problem]:
    """Steps without what they need: found after a training, or never."""
    if "train" not in steps and not any(job.is_trained for job in jobs):
        yield Problem(
            f"--steps {' '.join(steps)}", "none of the jobs is trained", "add the step train"
        )
    if "train" in steps and "evaluate" in steps and "predict" not in steps:
        test_labels = jobs[0].folders.test_labels
        if test_labels and not all(job.is_tested for job in jobs):
            what = f"measures predictions of imagesTs, too, as there is {test_labels}"
            yield Problem("--steps evaluate", what, "add the step predict")


def pretraining_problems(jobs: Sequence[Job], plans: Mapping[str, Any]) -> Iterator[Problem]:
    """Trainings that begin with what nobody pre-trained, nor is asked to."""
    classes, known, told = settings_classes(), set(jobs), set[str]()
    for job in jobs:
        if job.trainer not in classes or not job.segments or job.continues:
            continue
        given = given_settings(
            plans.get("semi", {}), SemiSettings, classes[job.trainer], job.trainer,
            job.configuration, list(plans["configurations"]), classes,
        )  # fmt: skip
        value, where = given.get("pretrained", (None, ""))
        before = job.pretraining
        if value != POOL or before in known or before.is_trained or job.configuration in told:
            continue
        told.add(job.configuration)
        what = f"pretrained is 'pool', and {before.folder.parent.name} is not trained"
        yield Problem(where, what, f"add {before.trainer} to -tr")


def cascade_problems(jobs: Sequence[Job], folds: int) -> Iterator[Problem]:
    """Second stages of a cascade whose first stage is neither trained nor to be trained.

    A fold trains on predictions of all cases, which the first stage makes of each fold's validation
    cases, in one folder for all folds. Those of fold "all" are of its own training cases.
    """
    known, ready = set(jobs), dict[Job, bool]()

    def is_ready(stage: Job, for_fold: str) -> bool:
        if stage not in ready:
            ready[stage] = stage.is_trained and stage.is_validated
        needs_test = stage.fold == for_fold and "predict" in stage.steps
        return ready[stage] and (not needs_test or stage.is_tested)

    numbered = [str(fold) for fold in range(folds)]
    for job in jobs:
        if (previous := job.previous) is None:
            continue
        needed, others = ([ALL], numbered) if job.fold == ALL else (numbered, [ALL])
        where, first = f"{job.trainer} {job.configuration}", previous.configuration
        stages = [replace(previous, fold=fold) for fold in needed]
        if any(stage not in known and not is_ready(stage, job.fold) for stage in stages):
            what = f"needs {first} of fold {', '.join(needed)} before it, with imagesTs predicted"
            yield Problem(where, what, f"-c {first} {job.configuration} -f {' '.join(needed)}")
        if job.trainer not in our_trainers() and job.fold != ALL:
            yield from never_predicted(job, first)
        mixed = [replace(previous, fold=fold) for fold in others]
        if any(stage in known or stage.is_trained for stage in mixed):
            what = (
                f"folds {' '.join(numbered)} and 'all' of {first} would write their predictions "
                f"over each other's: a network that has seen a case would label it for the others"
            )
            yield Problem(where, what, "train them with plans of different names (plan --name)")


def never_predicted(job: Job, first: str) -> Iterator[Problem]:
    """Pseudo-labelled cases, of which a first stage of nnU-Net's own trainers makes no input."""
    if count := len(pseudo_labelled_cases(job.folders.preprocessed)):
        what = f"as {first} predicts the validation cases alone, not {count} pseudo-labelled ones"
        yield Problem(job.trainer, what, "-tr SemiBaselineTrainer, or -f all")


def untold_patients(folders: Folders) -> Iterator[Problem]:
    """Patients that dataset.json tells otherwise since the data set was preprocessed."""
    raw, known = (
        optional_json(folder / "dataset.json") for folder in (folders.raw, folders.preprocessed)
    )
    own, old = raw.get(patients.KEY), known.get(patients.KEY)
    if raw and known and own != old:
        said = ("absent" if one is None else repr(one) for one in (own, old))
        what = "{!r} is {}, in the preprocessed data set {}".format(patients.KEY, *said)
        fix = f"semi_nnunet preprocess -d {folders.raw.name}"
        yield Problem(str(folders.raw / "dataset.json"), what, fix)


def untold_annotation(folders: Folders) -> Iterator[Problem]:
    """Annotated classes that dataset.json tells otherwise since the data set was preprocessed."""
    raw, known = (
        optional_json(folder / "dataset.json") for folder in (folders.raw, folders.preprocessed)
    )
    key = annotated_classes.KEY
    if raw and known and raw.get(key) != known.get(key):
        what = f"{key!r} is not what it was when the data set was preprocessed"
        fix = f"semi_nnunet preprocess -d {folders.raw.name}"
        yield Problem(str(folders.raw / "dataset.json"), what, fix)


def untold_trainers(folders: Folders, trainers: Sequence[str]) -> str | None:
    """A warning of trainers that know no partial labels, where the data set has them; or None."""
    description = optional_json(folders.preprocessed / "dataset.json")
    others = [name for name in trainers if name not in our_trainers()]
    if not (others and annotated_classes.is_partial(description)):
        return None
    return (
        f"WARNING: {', '.join(others)} takes what a case does not annotate for background. Fix: "
        f"compare with {BASELINE}, which is nnU-Net's training with partial labels"
    )


def seen_before(jobs: Sequence[Job], patient_of: patients.PatientOf) -> Iterator[Problem]:
    """Trainings that are done, on patients whom their fold validates on by now.

    Those of a teacher teach what it has seen to the job that it teaches.
    """
    splits = jobs[0].folders.preprocessed / "splits_final.json"
    folds = dict(enumerate(read_json(splits) if splits.is_file() else ()))
    numbered = [job for job in jobs if job.fold != ALL and int(job.fold) in folds]
    trained = {
        one for job in numbered for one in (job, job.teacher) if one is not None and one.is_trained
    }
    for job in sorted(trained, key=str):
        cases = optional_json(job.folder / "semi_settings.json").get("cases", {})
        fold = folds[int(job.fold)]
        others = {case for group in cases.values() for case in group} - {*fold["train"]}
        if seen := patients.shared(others, fold["val"], patient_of):
            what = f"was trained on what {splits.name} has in validation now: "
            yield Problem(str(job), what + patients.named(seen), f"move {job.folder} away")


def data_problems(
    folders: Folders,
    content: dict[str, Any],
    plans: str,
    configurations: Sequence[str],
    trainers: Sequence[str],
) -> Iterator[Problem]:
    """Data that is not preprocessed."""
    classes, dataset = our_trainers(), folders.preprocessed.name
    manager = PlansManager(content)
    users = [name for name in trainers if name in classes and classes[name].uses_unlabelled]
    for configuration in configurations:
        one = manager.get_configuration(configuration)
        identifier = one.data_identifier
        command = f"semi_nnunet preprocess -d {dataset} -c {configuration} -p {plans}"
        folder = folders.preprocessed / identifier
        if not folder.is_dir():
            yield Problem(str(folder), f"{configuration} is not preprocessed", command)
            continue
        for stock in sorted({*trainers} - {*classes}):
            yield from next_stage_problems(folders, manager, one, plans, stock)
        unlabelled = unlabelled_folder(folders.preprocessed, identifier)
        if users and not Manifest(unlabelled).present():
            what = f"{', '.join(users)} needs unlabelled images, found none"
            yield Problem(str(unlabelled), what, f"put them into imagesUn and run {command}")


def next_stage_problems(
    folders: Folders, manager: PlansManager, one: ConfigurationManager, plans: str, stock: str
) -> Iterator[Problem]:
    """Next stages that are not preprocessed; nnU-Net's trainers fail over them after a training.

    Ours leave them out.
    """
    for stage in one.next_stage_names or ():
        folder = folders.preprocessed / manager.get_configuration(stage).data_identifier
        if not folder.is_dir():
            command = f"semi_nnunet preprocess -d {folders.preprocessed.name} -c {stage} -p {plans}"
            yield Problem(str(folder), f"{stock} predicts for {stage}, too", command)


def test_label_problems(folders: Folders) -> Iterator[Problem]:
    """Test cases that could be predicted, but not measured."""
    if missing := folders.test_cases_without_labels():
        named = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        what = f"holds no labels of {len(missing)} cases of imagesTs: {named}"
        fix = "add them, move these images elsewhere, or all of labelsTs to predict without metrics"
        yield Problem(str(folders.test_labels), what, fix)
