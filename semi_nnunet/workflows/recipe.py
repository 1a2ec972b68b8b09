"""Recipes: published experiments as JSON files (``plans/``), checked before they are followed.

A recipe names the files (``semi_nnunet convert``), the cases that stay labelled (``split``), the
trainings and their settings (``plan --set``, ``crossval``), the published numbers, and how
comparable the outcome is::

    {
        "title": "LA, 4 of 80 labelled",
        "converter": "la2018",
        "options": {},                              of the converter, with "_" for "-"
        "labelled": {"number": 4, "published": true},       or {"number": 4, "seed": 0}, or null
        "configurations": ["3d_fullres"],
        "trainers": ["SemiBaselineTrainer", "SemiMeanTeacherTrainer"],
        "settings": {"SemiMeanTeacherTrainer.ema_decay": 0.99},
        "budget": null,                             as plan --budget
        "patch": [80, 112, 112],                    as plan --patch, or null
        "folds": ["all"],                           or of "0" to "4"
        "seeds": 3,
        "published": [{"method": "UA-MT", "metric": "Dice", "value": 82.26, "source": "..."}],
        "comparable": "...",
        "pseudo_labels": {"trainer": "SemiMeanTeacherTrainer", "target": "SemiBaselineTrainer",
                          "rounds": 2, "keep": [0.9]},      as pseudo-dataset, or left out
        "distil": {"share": 0.125}                          as distil, or left out
    }
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from semi_nnunet.datasets.converters import CONVERTERS, converter_module, find_converter_problems
from semi_nnunet.discovery.listing import all_trainers, our_trainers, unknown_trainers
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.raw.folds import MAX_FOLDS, count_folds
from semi_nnunet.runs.folders import ALL
from semi_nnunet.settings.assignments import parse_assignments
from semi_nnunet.settings.common import FILTER_SCORES, SemiSettings
from semi_nnunet.settings.overrides import collect_given_settings
from semi_nnunet.settings.schema import find_value_problems
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import read_json
from semi_nnunet.util.names import unknown

FIRST_STAGE, CASCADE = "3d_lowres", "3d_cascade_fullres"
CONFIGURATIONS = ("2d", FIRST_STAGE, "3d_fullres", CASCADE)
OLD_KEY = "slim"  # the name of "distil" in earlier recipes
NOT_A_TRAINER = "is not one of the recipe's trainers"


def require_printable(text: str) -> str:
    """Return a text, or raise ValueError if it can deceive readers of the screen."""
    if not text.isprintable():
        raise ValueError("must have no line breaks, control characters or marks of direction")
    return text


Text = Annotated[str, Field(pattern=r"\S"), AfterValidator(require_printable)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]
Positive = Annotated[int, Field(ge=1, le=100_000)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class StrictRecord:
    """A dataclass that pydantic reads without converting values or ignoring keys."""

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True)
class LabelledSubset(StrictRecord):
    """The cases that stay labelled.

    Args:
        number: of cases.
        published: use the list of labelled_subsets.json.
        seed: of the random choice by ``semi_nnunet split`` otherwise.
        held_out: number of other cases that are the test cases, instead of the converter's. Unlike
            those, they have no near-twin among the training cases.
    """

    number: Positive
    published: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    held_out: Positive | None = None


@dataclass(frozen=True)
class PseudoLabelRounds(StrictRecord):
    """Trainings from scratch on pseudo-labels of the unlabelled cases (``pseudo-dataset``).

    Args:
        trainer: one of the recipe's, whose model labels in the first round.
        target: trained on the labels; its model labels in the next round.
        rounds: how many.
        keep: fraction or number of the most certain cases; one value, or one for each round.
        score: measure of certainty.
        complete: also label the structures that labelled cases do not annotate.
    """

    trainer: Text
    target: Text
    rounds: Positive = 1
    keep: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1.0,)
    score: Text = "entropy"
    complete: bool = False


@dataclass(frozen=True)
class SlimStage(StrictRecord):
    """A small network at the end (``distil``), taught by the target of the pseudo-labels.

    Args:
        share: of the operations of its teacher.
        trainer: one of the recipe's, which teaches it if there are no pseudo-labels.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.125
    trainer: str | None = None


@dataclass(frozen=True)
class PublishedNumber(StrictRecord):
    """A reported number and its source."""

    method: Text
    metric: Text
    value: Number
    source: Text


@dataclass(frozen=True, kw_only=True)
class Recipe(StrictRecord):
    """One experiment; see the head of this file."""

    title: Text
    converter: Text
    labelled: LabelledSubset | None
    configurations: Texts
    trainers: Texts
    published: tuple[PublishedNumber, ...]
    comparable: Text
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    budget: str | None = None
    patch: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    folds: Texts = ("all",)
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3
    pseudo_labels: PseudoLabelRounds | None = None
    distil: SlimStage | None = None


PARTS: dict[str, type] = {
    "labelled": LabelledSubset,
    "published": PublishedNumber,
    "pseudo_labels": PseudoLabelRounds,
    "distil": SlimStage,
}


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

    Raises:
        UserError: naming all that is wrong with it.
    """
    content, headline = read_json(path), f"{path} is no recipe:"
    if isinstance(content, dict) and OLD_KEY in content:
        content["distil"] = content.pop(OLD_KEY)
    try:
        recipe: Recipe = TypeAdapter(Recipe).validate_json(json.dumps(content))
    except ValidationError as error:
        raise UserError(headline, [*_find_shape_problems(error)]) from error
    problems = [*_find_conversion_problems(recipe), *_find_training_problems(recipe)]
    raise_if_any(headline, dict.fromkeys(problems))
    return recipe


def _find_shape_problems(error: ValidationError) -> Iterator[Problem]:
    """Yield missing and unknown keys, and values of the wrong type or range."""
    for detail in error.errors():
        keys = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in detail["loc"]]
        location = "".join(keys).removeprefix(".") or "the file"
        if detail["type"] == "missing":
            yield Problem(location, "is missing", "add it")
        elif detail["type"] == "unexpected_keyword_argument":
            record = PARTS[str(detail["loc"][0])] if len(keys) > 1 else Recipe
            parent, _, name = location.rpartition(".")
            yield from unknown(f"key {parent}".strip(), [name], [f.name for f in fields(record)])
        else:
            rule = re.sub(r"^\w+ should|^Value error, must", "must", detail["msg"])
            yield Problem(location, f"{rule}, got {detail['input']!a:.200}", "correct it")


def _find_conversion_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield a wrong converter, and wrong or missing options of the converter."""
    yield from unknown("converter", [recipe.converter], CONVERTERS)
    if recipe.converter not in CONVERTERS:
        return
    yield from find_converter_problems(recipe.converter, recipe.options)
    # the length of some published lists is only known from the data's files
    lengths, labelled = (
        getattr(converter_module(recipe.converter), "PUBLISHED", None),
        recipe.labelled,
    )
    if labelled and labelled.published and lengths is not None and labelled.number not in lengths:
        text = f"has lists of {' or '.join(map(str, lengths))} cases" if lengths else "has no list"
        message = f"{recipe.converter} {text}, got {labelled.number}"
        yield Problem("labelled.published", message, "correct the number, or give a seed instead")


def _find_training_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield wrong trainers, configurations, folds, budgets, patches and settings."""
    yield from unknown_trainers(recipe.trainers)
    yield from unknown("configuration", recipe.configurations, CONFIGURATIONS)
    yield from _find_fold_problems(recipe)
    budget, patch = recipe.budget, recipe.patch
    if budget not in (None, "cpu") and not is_positive_number(str(budget)):
        rule = f"must be null, 'cpu' or seconds per step above 0, got {budget!r}"
        yield Problem("budget", rule, "correct it")
    axes = {2 if name == "2d" else 3 for name in recipe.configurations}
    if patch is not None and len(patch) not in axes:
        counts = " or ".join(map(str, sorted(axes)))
        names = ", ".join(recipe.configurations)
        message = f"must have {counts} numbers for {names}, got {list(patch)}"
        yield Problem("patch", message, "correct it, or the configurations")
    trainers = [name for name in recipe.trainers if name in our_trainers()]
    yield from _find_setting_problems(recipe, trainers)
    yield from _find_later_problems(recipe)


def _find_later_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield pseudo-labels and a small network of models that the recipe does not train."""
    rounds, small = recipe.pseudo_labels, recipe.distil
    if rounds is not None:
        location = "trainer of pseudo_labels"
        yield from unknown(location, [rounds.trainer], recipe.trainers, NOT_A_TRAINER)
        yield from unknown_trainers([rounds.target])
        yield from unknown("score of pseudo_labels", [rounds.score], FILTER_SCORES)
        if len(rounds.keep) not in (1, rounds.rounds):
            message = f"must be one value, or one for each of {rounds.rounds} rounds"
            yield Problem("pseudo_labels.keep", f"{message}, got {list(rounds.keep)}", "correct it")
    if small is None:
        return
    if rounds is None:
        trainer = small.trainer or "none"
        yield from unknown("trainer of distil", [trainer], recipe.trainers, NOT_A_TRAINER)
    elif small.trainer is not None:
        message = f"is the target of the pseudo labels, {rounds.target}"
        yield Problem("distil.trainer", message, "leave it out")


def is_positive_number(text: str) -> bool:
    """Return whether a text is a number above 0, such as "0.5".

    >>> is_positive_number("0.5"), is_positive_number("0"), is_positive_number("1e3")
    (True, False, False)
    """
    return text.replace(".", "", 1).isdecimal() and 0 < float(text) < math.inf


def _find_fold_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield folds that nnU-Net does not make of the labelled cases, or that make no cascade.

    If cases are grouped by patient, their number is only known after converting the data.
    """
    labelled = None if groups_by_patient(recipe.converter) else recipe.labelled
    count = count_folds(labelled.number) if labelled else MAX_FOLDS
    numbers = [*map(str, range(count))]
    origin = f" of {labelled.number} labelled cases" if labelled else ""
    why = f"there are {count} folds{origin}"
    yield from unknown("fold", recipe.folds, [*numbers, ALL], why)
    if CASCADE in recipe.configurations:
        if FIRST_STAGE not in recipe.configurations:
            message = f"needs the predictions of {FIRST_STAGE}"
            yield Problem(CASCADE, message, f"add {FIRST_STAGE!r} to the configurations")
        if not groups_by_patient(recipe.converter) and set(recipe.folds) not in (
            {ALL},
            set(numbers),
        ):
            message = f"{CASCADE} needs the predictions of every fold, or only of 'all'"
            yield Problem("folds", f"{message}, got {', '.join(recipe.folds)}", "correct them")


def groups_by_patient(converter: str) -> bool:
    """Return whether data sets of a converter have several cases of a patient."""
    return converter in CONVERTERS and hasattr(converter_module(converter), "PATIENT")


def _find_setting_problems(recipe: Recipe, trainers: Sequence[str]) -> Iterator[Problem]:
    """Yield settings that none of the ``trainers`` has, or whose values are out of range."""
    assignments = [f"{key}={json.dumps(value)}" for key, value in recipe.settings.items()]
    try:
        semi = parse_assignments(assignments)
    except UserError as error:
        yield Problem("settings", str(error), "correct them")
        return
    sections = [key for key in semi if key.endswith("Trainer")]
    existing = all_trainers()
    misspelled = [name for name in recipe.trainers if name not in existing]
    for section in sections:
        if section in existing and section not in trainers:
            location = f"trainer of settings {section!r}"
            yield Problem(location, NOT_A_TRAINER, "add it to them")
        else:
            names = [*trainers, *misspelled]
            yield from unknown("trainer of settings", [section], names, NOT_A_TRAINER)
    semi = {key: value for key, value in semi.items() if key in trainers or key not in sections}
    classes = settings_classes()
    for trainer in trainers:
        for configuration in recipe.configurations:
            try:
                settings = collect_given_settings(
                    semi, SemiSettings, classes[trainer], trainer, configuration, CONFIGURATIONS,
                    classes,
                )  # fmt: skip
            except UserError as error:
                yield from error.problems
                continue
            yield from find_value_problems(classes[trainer], settings)
