"""Which jobs a cross-validation consists of, checked before the first one starts."""

from __future__ import annotations

import difflib
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from semi_nnunet.data import patients
from semi_nnunet.data.layout import (
    dataset_name,
    read_plans,
    require_paths,
    unlabelled_folder,
)
from semi_nnunet.data.manifest import Manifest
from semi_nnunet.data.sampling import pseudo_labelled_cases
from semi_nnunet.discovery.listing import other_trainers, trainer_classes
from semi_nnunet.evaluation.values import Model, Table
from semi_nnunet.runs.job import ALL, STEPS, Folders, Job
from semi_nnunet.runs.matched import changed_since
from semi_nnunet.settings.overrides import given_before, without_new_rules
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import optional_json, read_json, write_json
from semi_nnunet.util.lock import holder_of

ASKED = "semi_crossval/jobs.json"  # in the results of a data set


def folders_of(dataset: str) -> Folders:
    """nnU-Net's folders of a data set given by name or number."""
    require_paths()
    name = dataset_name(dataset)
    roots = [Path(root.require()) for root in (nnUNet_raw, nnUNet_preprocessed, nnUNet_results)]
    if not any((root / name).is_dir() for root in roots):
        there = unique([one.name for root in roots for one in sorted(root.glob("Dataset*_*"))])
        raise UserError("There is no such data set:", list(unknown("data set", [name], there)))
    return Folders(*(root / name for root in roots))


def all_folds(folders: Folders) -> list[str]:
    """The numbers of those that there are or will be; "all" alone where a case cannot be spared."""
    known = (folders.preprocessed / "dataset.json").is_file()
    count = number_of_folds(folders) if known else patients.FOLDS
    return [*map(str, range(count))] or [ALL]


def make_jobs(
    folders: Folders,
    plans: str,
    configurations: Sequence[str],
    trainers: Sequence[str],
    folds: Sequence[str],
    seeds: int,
    npz: bool = False,
    steps: Sequence[str] = STEPS,
) -> list[Job]:
    """Every trainer x configuration x fold x seed; writes the plans of the seeds above 0.

    Seed 0 uses the plans themselves, so that a fold trained by hand counts.

    Raises:
        UserError: all that would keep a job from running.
    """
    content = read_plans(folders.preprocessed, plans)
    configurations, trainers, folds = map(unique, (configurations, trainers, folds))
    problems = [
        *unknown_trainers(trainers),
        *unknown("configuration", configurations, content["configurations"]),
        *untold_patients(folders),
        *fold_problems(folders, folds),
        *unknown("step", steps, STEPS),
    ]
    if not problems:
        problems = [
            *data_problems(folders, content, plans, configurations, trainers),
            *test_label_problems(folders),
            *(seed_problems(content, plans) if seeds > 1 else ()),
        ]
    if problems:
        raise UserError("The cross-validation cannot start:", problems)
    write_folds(folders, content, configurations, folds)
    names = [plans, *(write_seed(folders, plans, content, seed) for seed in range(1, seeds))]
    jobs = [
        Job(folders, trainer, configuration, fold, seed, name, npz, tuple(steps))
        for (seed, name), configuration, fold, trainer in itertools.product(
            enumerate(names), configurations, folds, trainers
        )
    ]
    problems = list(dict.fromkeys(stage_problems(jobs, number_of_folds(folders))))
    patient_of = patients_of(folders)
    problems += [*step_problems(jobs, steps), *changed_since(jobs, content, patient_of)]
    problems += seen_before(jobs, patient_of)
    if problems:
        raise UserError("The cross-validation cannot start:", problems)
    return jobs


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


def stage_problems(jobs: Sequence[Job], folds: int) -> Iterator[Problem]:
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
        if job.trainer not in trainer_classes() and job.fold != ALL:
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


def needs(jobs: Sequence[Job]) -> dict[Job, list[Job]]:
    """Job -> those of the others that come before it.

    A cascade's second stage comes after the first of every fold, as their predictions lie in one
    folder, and a trainer after the one that teaches it.
    """
    known, of_all_folds = set(jobs), defaultdict[Job, list[Job]](list)
    for job in jobs:
        of_all_folds[replace(job, fold=ALL)].append(job)
    found = {}
    for job in jobs:
        previous, teacher = job.previous, job.teacher
        found[job] = list(of_all_folds[replace(previous, fold=ALL)]) if previous else []
        found[job] += [teacher] if teacher in known else []
    return found


def unique(names: Sequence[str]) -> list[str]:
    """Each once, in the order given."""
    return list(dict.fromkeys(names))


def unknown(
    what: str, names: Sequence[str], known: Collection[str], why: str = "does not exist"
) -> Iterator[Problem]:
    """Names that are not known, each with the nearest that is."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            others = f"choose from {', '.join(known)}" if known else "leave it out, there is none"
            fix = f"did you mean {near[0]!r}?" if near else others
            yield Problem(f"{what} {name!r}", why, fix)


def known_trainers() -> list[str]:
    """Ours, nnU-Net's and those in nnUNet_extTrainer."""
    return [*trainer_classes(), *sorted(other_trainers())]


def unknown_trainers(names: Sequence[str]) -> Iterator[Problem]:
    """Trainers that are neither ours nor nnU-Net's nor in nnUNet_extTrainer."""
    yield from unknown("trainer", names, known_trainers())


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


def fold_problems(folders: Folders, folds: Sequence[str]) -> Iterator[Problem]:
    """Folds that tear patients, or that the split does not have: nnU-Net would make one up."""
    count = number_of_folds(folders)
    for fold in folds:
        if fold not in (ALL, *map(str, range(count))):
            fix = f"choose from {', '.join([*map(str, range(count)), ALL])}"
            yield Problem(f"fold {fold!r}", f"there are {count} folds", fix)
    splits, patient_of = folders.preprocessed / "splits_final.json", patients_of(folders)
    for number, fold in enumerate(read_json(splits) if splits.is_file() else ()):
        split = patients.split_patients(fold, patient_of)
        if split and str(number) in folds:
            what = f"fold {number} trains and validates on {patients.named(split)}"
            yield Problem(str(splits), what, "delete it, folds of whole patients are made instead")


def number_of_folds(folders: Folders) -> int:
    """Of the split that is there, or that nnU-Net will make; 0 with a single labelled case."""
    splits = folders.preprocessed / "splits_final.json"
    if splits.is_file():
        return len(read_json(splits))
    description = read_json(folders.preprocessed / "dataset.json")
    pseudo_labelled = pseudo_labelled_cases(folders.preprocessed)
    if patients.KEY not in description:
        labelled = int(description["numTraining"]) - len(pseudo_labelled)
        return patients.number_of_folds(labelled)
    ending, known = description["file_ending"], folders.preprocessed / "gt_segmentations"
    labels = known if known.is_dir() else folders.raw / "labelsTr"
    cases = [path.name.removesuffix(ending) for path in labels.glob(f"*{ending}")]
    patient_of = patients.patient_finder(description)
    return len(patients.make_folds(cases, patient_of, pseudo_labelled))


def write_folds(
    folders: Folders, content: dict[str, Any], configurations: Sequence[str], folds: Sequence[str]
) -> None:
    """Write splits_final.json, where nnU-Net's own trainers would write a wrong one.

    Theirs tears patients, and validates on pseudo labels.
    """
    path = folders.preprocessed / "splits_final.json"
    description = read_json(folders.preprocessed / "dataset.json")
    pseudo_labelled = pseudo_labelled_cases(folders.preprocessed)
    theirs_fits = patients.KEY not in description and not pseudo_labelled
    if theirs_fits or path.is_file() or set(folds) <= {ALL}:
        return
    one = PlansManager(content).get_configuration(configurations[0])
    folder = str(folders.preprocessed / one.data_identifier)
    cases = infer_dataset_class(folder).get_identifiers(folder)
    patient_of = patients.patient_finder(description)
    write_json(path, patients.make_folds(cases, patient_of, pseudo_labelled))


def data_problems(
    folders: Folders,
    content: dict[str, Any],
    plans: str,
    configurations: Sequence[str],
    trainers: Sequence[str],
) -> Iterator[Problem]:
    """Data that is not preprocessed."""
    classes, dataset = trainer_classes(), folders.preprocessed.name
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


def test_label_problems(folders: Folders) -> Iterator[Problem]:
    """Test cases that could be predicted, but not measured."""
    if missing := folders.test_cases_without_labels():
        named = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        what = f"holds no labels of {len(missing)} cases of imagesTs: {named}"
        fix = "add them, move these images elsewhere, or all of labelsTs to predict without metrics"
        yield Problem(str(folders.test_labels), what, fix)


def seed_problems(content: dict[str, Any], plans: str) -> Iterator[Problem]:
    """Seeds of single sections, which hold whatever the plans' own seed is."""
    semi = content.get("semi", {})
    sections = {name: part for name, part in semi.items() if isinstance(part, dict)}
    for name, section in sections.items():
        inner = {f"{name}.{key}": part for key, part in section.items() if isinstance(part, dict)}
        for where, part in {name: section, **inner}.items():
            if "seed" in part:
                what = f"{where}.seed is given, so that every seed would be the same training"
                yield Problem(plans, what, "set the seed of all instead (semi_nnunet plan --reset)")


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


def seed_name(plans: str, seed: int) -> str:
    """The plans of a seed; seed 0 has the plans themselves."""
    return f"{plans}_seed{seed}" if seed else plans


def write_seed(folders: Folders, plans: str, content: dict[str, Any], seed: int) -> str:
    """Write the same plans with another seed, counted from theirs; returns their name.

    Raises:
        UserError: they exist with other settings, and something was trained with them.
    """
    name = seed_name(plans, seed)
    semi = content.get("semi", {})
    own = {**semi, "seed": semi.get("seed", 0) + seed}
    changed = {**content, "plans_name": name, "semi": own}
    changed.pop("semi_planned", None)
    path = folders.preprocessed / f"{name}.json"
    if path.is_file():
        before = read_json(path)
        had = without_new_rules(own, before.get("semi", {}), {**given_before(content), "seed": 0})
        if before in (changed, {**changed, "semi": had}):
            return name  # what it lacks, the training plans by today's rules
    trained = sorted(folders.results.glob(f"*__{name}__*/fold_*/checkpoint_*.pth"))
    if path.is_file() and trained:
        raise UserError(
            f"{path} differs from {plans} by more than the seed, and {trained[0].parent} was "
            f"trained with it. Fix: move these results away, or give the new plans another name "
            f"(semi_nnunet plan --name)"
        )
    write_json(path, changed)
    return name


def note_asked(folders: Folders, plans: str, jobs: Sequence[Job]) -> None:
    """Write down the jobs of the newest crossval with these plans, for those not yet begun.

    Those of an earlier one that is still at work stay.
    """
    path = folders.results / ASKED
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = [[job.trainer, job.configuration, job.fold, job.seed, job.plans] for job in jobs]
    earlier = optional_json(path)
    if any(holder_of(job.lock) for job in asked_jobs(folders, plans)):
        keys = [*earlier[plans], *(key for key in keys if key not in earlier[plans])]
    write_json(path, {**earlier, plans: keys})


def asked_jobs(folders: Folders, plans: str | None = None) -> list[Job]:
    """The jobs that were asked for last with these plans, or with any."""
    asked = optional_json(folders.results / ASKED)
    return [
        Job(folders, *key) for name, keys in asked.items() for key in keys if plans in (None, name)
    ]


def unseeded(plans: str) -> tuple[str, int]:
    """The plans that :func:`make_jobs` made those of a seed from, and the seed."""
    name, _, seed = plans.rpartition("_seed")
    return (name, int(seed)) if name and seed.isdecimal() else (plans, 0)


def found_jobs(folders: Folders, plans: str | None = None) -> list[Job]:
    """Every fold in the results folder that was trained, or begun, with any seed.

    Args:
        folders: of the data set.
        plans: only trainings with these; else with any.
    """
    jobs = []
    for folder in sorted(folders.results.glob("*__*__*/fold_*")):
        model, fold = folder.parent.name.split("__"), folder.name.removeprefix("fold_")
        if len(model) != 3 or not (fold == ALL or fold.isdecimal()):
            continue  # a copy that somebody keeps
        trainer, name, configuration = model
        own, seed = (name, 0) if name == plans else unseeded(name)
        if plans in (None, own):
            jobs.append(Job(folders, trainer, configuration, fold, seed, name))
    return jobs


def require_trained(folders: Folders, plans: str) -> None:
    """Refuse plans that nothing was trained with, where there are trainings with others.

    Raises:
        UserError: so it is; it names the nearest.
    """
    trained = unique([unseeded(job.plans)[0] for job in found_jobs(folders)])
    if trained and plans not in trained:
        why = f"were not used for any training of {folders.results.name}"
        raise UserError("There is nothing to look at:", [*unknown("plans", [plans], trained, why)])


def patients_of(folders: Folders) -> patients.PatientOf:
    """Case -> its patient, as the raw data set says, or what is there of others."""
    models = sorted(folders.results.glob("*__*__*"))
    for folder in (folders.raw, folders.preprocessed, *models):
        if description := optional_json(folder / "dataset.json"):
            return patients.patient_finder(description)
    return patients.itself


def tables_of(jobs: Iterable[Job], subset: str) -> list[Table]:
    """The metrics of one set of cases, "validation" or "test", of every job that measures it.

    Those of a training before the one that is there are left out: see :func:`stale_tables`.
    """
    return [
        (Model(job.trainer, job.configuration), job.fold, job.seed, tables[subset])
        for job in jobs
        if subset in (tables := job.current_tables())
    ]


def stale_tables(jobs: Iterable[Job]) -> list[Problem]:
    """Tables of folds that were trained or validated again since.

    Copying without times may look alike, so that the fix says what to do then.
    """
    return [
        Problem(
            str(job.tables()[subset]),
            f"is older than the training or validation of {job}, and left out",
            "semi_nnunet crossval measures again; if it was copied without times, touch the file",
        )
        for job in jobs
        for subset in job.tables()
        if job.is_stale(subset)
    ]
