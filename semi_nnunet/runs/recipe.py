"""Recipes: published experiments as JSON files (``plans/``), every word of them checked.

A recipe says from which files (``semi_nnunet convert``), which cases stay labelled (``split``),
what is trained with which settings (``plan --set``, ``crossval``), what was published, and how
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
                          "rounds": 2, "keep": [0.9]},      as distil, or left out
        "slim": {"share": 0.125}                            as slim, or left out
    }
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, get_type_hints

from pydantic import Field

from semi_nnunet.data.patients import FOLDS, number_of_folds
from semi_nnunet.datasets.converters import CONVERTERS, converter_module, parser_of_options
from semi_nnunet.discovery.listing import all_trainers, our_trainers, unknown_trainers
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.runs.folders import ALL
from semi_nnunet.settings.assignments import parse_assignments
from semi_nnunet.settings.common import FILTER_SCORES, SemiSettings
from semi_nnunet.settings.overrides import given_settings
from semi_nnunet.settings.schema import value_problems
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import read_json
from semi_nnunet.util.names import unknown
from semi_nnunet.util.validation import fits

FIRST_STAGE, CASCADE = "3d_lowres", "3d_cascade_fullres"
CONFIGURATIONS = ("2d", FIRST_STAGE, "3d_fullres", CASCADE)
Text = Annotated[str, Field(pattern=r"\S")]
Texts = Annotated[tuple[str, ...], Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Numbers = Annotated[tuple[float, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Labelled:
    """The cases that stay labelled.

    Args:
        number: of cases.
        published: they are a list of labelled_subsets.json.
        seed: else, of ``semi_nnunet split``'s choice.
    """

    number: Count
    published: bool = False
    seed: Count = 0


@dataclass(frozen=True)
class PseudoLabels:
    """Pseudo labels of the unlabelled cases, with which a trainer starts anew (``distil``).

    Args:
        trainer: one of the recipe's, whose model labels in the first round.
        target: that is trained on them, and labels in the next round.
        rounds: how many.
        keep: fraction or number of the cases, the surest; one value, or one for each round.
        score: by which the surest are chosen.
        complete: the model also labels what labelled cases do not annotate.
    """

    trainer: Text
    target: Text
    rounds: Count = 1
    keep: Numbers = (1.0,)
    score: Text = "entropy"
    complete: bool = False


@dataclass(frozen=True)
class Slim:
    """A small network at the end (``slim``), taught by the target of the pseudo labels.

    Args:
        share: of the operations of its teacher.
        trainer: one of the recipe's, that teaches it where there are no pseudo labels.
    """

    share: Number = 0.125
    trainer: str | None = None


@dataclass(frozen=True)
class Published:
    """A number that somebody reported, and where."""

    method: Text
    metric: Text
    value: Number
    source: Text


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment; see the head of this file."""

    title: Text
    converter: Text
    labelled: Labelled | None
    configurations: Texts
    trainers: Texts
    published: tuple[Published, ...]
    comparable: Text
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    budget: str | None = None
    patch: tuple[int, ...] | None = None
    folds: Texts = ("all",)
    seeds: Count = 3
    pseudo_labels: PseudoLabels | None = None
    slim: Slim | None = None


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

    Raises:
        UserError: naming all that is wrong with it.
    """
    content = read_json(path)
    problems = [*_shape_problems(content, Recipe, "")]
    if not problems:
        problems = [*_option_problems(content), *_training_problems(content)]
    if problems:
        raise UserError(f"{path} is no recipe:", list(dict.fromkeys(problems)))
    parts: dict[str, Any] = {
        "published": tuple(Published(**entry) for entry in content["published"])
    }
    for name, kind in PARTS.items():
        if content.get(name) is not None:
            parts[name] = kind(**plain_values(content[name]))
    plain = plain_values(content)
    return Recipe(**(plain | parts))


def plain_values(content: Mapping[str, Any]) -> dict[str, Any]:
    """The values of JSON, with tuples for lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}


# ---- the keys and the types of their values ----

PARTS: dict[str, type] = {"labelled": Labelled, "pseudo_labels": PseudoLabels, "slim": Slim}
RULES: dict[Any, tuple[str, Any]] = {  # type of a field -> rule in words, type of its JSON value
    Text: ("a text", Text),
    str | None: ("a text or null", str | None),
    bool: ("true or false", bool),
    Count: ("a whole number from 0", Count),
    Number: ("a number", Number),
    Texts: ("a list of texts", Texts),
    tuple[int, ...] | None: ("a list of whole numbers, or null", tuple[int, ...] | None),
    Mapping[str, Any]: ("an object", dict[str, Any]),
    Numbers: ("a list of numbers", Numbers),
    **{kind | None: ("an object or null", dict[str, Any] | None) for kind in PARTS.values()},
    tuple[Published, ...]: ("a list of objects", tuple[Any, ...]),
}


def _shape_problems(content: Any, wanted: type, where: str) -> Iterator[Problem]:
    """Unknown and missing keys, and values of the wrong type, of ``content`` and its parts."""
    if not isinstance(content, dict):
        yield Problem(
            where.removesuffix(".") or "the file",
            f"must be an object, got {content!r}",
            "write {...}",
        )
        return
    known = {one.name: one for one in fields(wanted)}
    hints = get_type_hints(wanted, include_extras=True)
    yield from unknown(f"key {where}".strip(), list(content), known)
    for name, one in known.items():
        if name not in content:
            if one.default is MISSING and one.default_factory is MISSING:
                yield Problem(f"{where}{name}", "is missing", "add it")
            continue
        rule, kind = RULES[hints[name]]
        if not fits(kind, content[name]):
            yield Problem(f"{where}{name}", f"must be {rule}, got {content[name]!r}", "correct it")
        elif name in PARTS and content[name] is not None:
            yield from _shape_problems(content[name], PARTS[name], f"{name}.")
        elif hints[name] == tuple[Published, ...]:
            for i, entry in enumerate(content[name]):
                yield from _shape_problems(entry, Published, f"{name}[{i}].")


# ---- what the keys name ----


def _option_problems(content: Mapping[str, Any]) -> Iterator[Problem]:
    """The converter, its options, the numbers of labelled cases and of seeds."""
    yield from unknown("converter", [content["converter"]], CONVERTERS)
    if content["converter"] in CONVERTERS:
        module = converter_module(content["converter"])
        parameters = dict(inspect.signature(module.convert).parameters)
        del parameters["source"]
        yield from unknown("option", list(content.get("options", {})), parameters)
        given = content.get("options", {})
        for name, parameter in parameters.items():
            if parameter.default is parameter.empty and given.get(name) is None:
                yield Problem(f"options.{name}", "is missing", "add it")
        yield from _converter_problems(module, {k: v for k, v in given.items() if k in parameters})
    for name, number in (
        ("labelled.number", (content["labelled"] or {}).get("number", 1)),
        ("seeds", content.get("seeds", 1)),
    ):
        if number < 1:
            yield Problem(name, f"must be 1 or more, got {number}", "correct it")
    yield from _list_problems(content)


def _list_problems(content: Mapping[str, Any]) -> Iterator[Problem]:
    """Published lists that the converter has not; how long some are, only the files tell."""
    labelled, converter = content["labelled"] or {}, content["converter"]
    if not labelled.get("published") or converter not in CONVERTERS:
        return
    module = converter_module(converter)
    known, number = getattr(module, "PUBLISHED", None), labelled["number"]
    if known is not None and number not in known:
        lengths = f"has lists of {' or '.join(map(str, known))} cases" if known else "has no list"
        what = f"{converter} {lengths}, got {number}"
        yield Problem("labelled.published", what, "correct the number, or give a seed instead")


def _converter_problems(module: ModuleType, options: Mapping[str, Any]) -> Iterator[Problem]:
    """Values that the converter's own parser does not take, or would not see."""
    parser = parser_of_options(module)
    for name, value in options.items():
        where, got = f"options.{name}", f"got {json.dumps(value)}"
        if isinstance(parser.get_default(name), bool) and not isinstance(value, bool):
            yield Problem(where, f"must be true or false, {got}", "correct it")
            continue
        try:
            parsed = getattr(parser.parse_args(option_words({name: value})), name)
        except UserError as error:
            yield Problem(where, str(error), "correct it")
            continue
        if str(parsed) != str(value):  # null and false are not typed
            what = f"must be a value that can be typed, {got}"
            yield Problem(where, what, "leave it out for the default, or correct it")


def option_words(options: Mapping[str, Any]) -> list[str]:
    """The options of a converter as they are typed; null is its default."""
    words = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [flag] if value else []
        elif value is not None:
            words += [flag, str(value)]
    return words


def _training_problems(content: Mapping[str, Any]) -> Iterator[Problem]:
    """Trainers, configurations, folds, budget and settings."""
    yield from unknown_trainers(content["trainers"])
    yield from unknown("configuration", content["configurations"], CONFIGURATIONS)
    yield from _fold_problems(content)
    budget = content.get("budget")
    if budget not in (None, "cpu") and not is_positive(budget):
        rule = f"must be null, 'cpu' or seconds per step above 0, got {budget!r}"
        yield Problem("budget", rule, "correct it")
    patch = content.get("patch")
    if patch is not None and min(patch) < 1:
        yield Problem("patch", f"must be positive, got {patch}", "correct it")
    axes = {2 if one == "2d" else 3 for one in content["configurations"]}
    if patch is not None and len(patch) not in axes:
        shown = " or ".join(map(str, sorted(axes)))
        what = f"must have {shown} numbers for {', '.join(content['configurations'])}, got {patch}"
        yield Problem("patch", what, "correct it, or the configurations")
    trainers = [name for name in content["trainers"] if name in our_trainers()]
    yield from _setting_problems(content, trainers)
    yield from _later_problems(content)


def _later_problems(content: Mapping[str, Any]) -> Iterator[Problem]:
    """Pseudo labels and a small network of models that the recipe does not train."""
    pseudo_labels, slim = content.get("pseudo_labels"), content.get("slim")
    why = "is not one of the recipe's trainers"
    if pseudo_labels is not None:
        first, target = pseudo_labels["trainer"], pseudo_labels["target"]
        yield from unknown("trainer of pseudo_labels", [first], content["trainers"], why)
        yield from unknown_trainers([target])
        score = pseudo_labels.get("score", "entropy")
        yield from unknown("score of pseudo_labels", [score], FILTER_SCORES)
        rounds, keep = pseudo_labels.get("rounds", 1), pseudo_labels.get("keep", [1])
        if rounds < 1:
            yield Problem("pseudo_labels.rounds", f"must be 1 or more, got {rounds}", "correct it")
        if len(keep) not in (1, rounds) or min(keep) <= 0:
            what = f"must be one value above 0, or one for each of {rounds} rounds, got {keep}"
            yield Problem("pseudo_labels.keep", what, "correct it")
    if slim is None:
        return
    teacher, share = slim.get("trainer"), slim.get("share", 0.125)
    if not 0 < share <= 1:
        yield Problem("slim.share", f"must be above 0 and at most 1, got {share}", "correct it")
    if pseudo_labels is None:
        yield from unknown("trainer of slim", [teacher or "none"], content["trainers"], why)
    elif teacher is not None:
        what = f"is the target of the pseudo labels, {pseudo_labels['target']}"
        yield Problem("slim.trainer", what, "leave it out")


def is_positive(text: str) -> bool:
    """Whether it is a number such as "0.5", above 0."""
    return text.replace(".", "", 1).isdecimal() and float(text) > 0


def _fold_problems(content: Mapping[str, Any]) -> Iterator[Problem]:
    """Folds that nnU-Net does not make of the labelled cases, or that make no cascade.

    How many patients there are shows when the data are converted.
    """
    folds, labelled = content.get("folds", [ALL]), content["labelled"]
    known = not tells_patients(content["converter"])
    count = number_of_folds(labelled["number"]) if labelled and known else FOLDS
    numbered = [*map(str, range(count))]
    of_what = f" of {labelled['number']} labelled cases" if labelled and known else ""
    yield from unknown("fold", folds, [*numbered, ALL], f"there are {count} folds{of_what}")
    if CASCADE in content["configurations"]:
        if FIRST_STAGE not in content["configurations"]:
            what = f"needs the predictions of {FIRST_STAGE}"
            yield Problem(CASCADE, what, f"add {FIRST_STAGE!r} to the configurations")
        if known and set(folds) not in ({ALL}, set(numbered)):
            what = f"{CASCADE} needs the predictions of every fold, or of 'all' alone"
            yield Problem("folds", f"{what}, got {', '.join(folds)}", "correct them")


def tells_patients(converter: str) -> bool:
    """Whether its data sets have several cases of a patient."""
    if converter not in CONVERTERS:
        return False
    return hasattr(converter_module(converter), "PATIENT")


def _setting_problems(content: Mapping[str, Any], trainers: Sequence[str]) -> Iterator[Problem]:
    """Settings that none of the ``trainers`` has, or whose values are out of range."""
    settings = content.get("settings", {})
    try:
        semi = parse_assignments([f"{key}={json.dumps(value)}" for key, value in settings.items()])
    except UserError as error:
        yield Problem("settings", str(error), "correct them")
        return
    sections = [key for key in semi if key.endswith("Trainer")]
    why, there_are = "is not one of the recipe's trainers", all_trainers()
    misspelled = [name for name in content["trainers"] if name not in there_are]
    for section in sections:
        if section in there_are and section not in trainers:
            yield Problem(f"trainer of settings {section!r}", why, "add it to them")
        else:
            yield from unknown("trainer of settings", [section], [*trainers, *misspelled], why)
    semi = {key: value for key, value in semi.items() if key in trainers or key not in sections}
    known = settings_classes()
    for trainer in trainers:
        kind = known[trainer]
        for configuration in content["configurations"]:
            try:
                given = given_settings(
                    semi, SemiSettings, kind, trainer, configuration, CONFIGURATIONS, known
                )
            except UserError as error:
                yield from error.problems
                continue
            yield from value_problems(kind, given)
