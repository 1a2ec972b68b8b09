"""Write the page of all settings, docs/settings.md, from the settings classes of the trainers.

python docs/generate_settings.py            writes the page
python docs/generate_settings.py --check    fails if the page is outdated
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.settings.common import TOPICS, SemiSettings
from semi_nnunet.settings.rules import DatasetProperties
from semi_nnunet.settings.schema import find_topic, resolve

PAGE = Path(__file__).with_name("settings.md")
EXAMPLE = DatasetProperties(
    labelled_cases=20,
    unlabelled_cases=200,
    batch_size=2,
    patch_size=(80, 160, 160),
    median_shape=(120, 320, 320),
    foreground_classes=3,
)

HEAD = """# Settings

<!-- written by docs/generate_settings.py: change the settings classes, not this page -->

You rarely need to change a setting: each has a default or is planned for your data. Change one with
`semi_nnunet plan --set`. `plan` writes the settings into nnU-Net's plans, under the key `"semi"`,
and prints the values derived from this data set, each with its reason. `-tr` also prints those
of a method, and `--all` every value. Without `plan`, a training derives the same values itself.

```bash
semi_nnunet plan -d 42 -tr SemiMeanTeacherTrainer
semi_nnunet plan -d 42 --set epochs=300 SemiMeanTeacherTrainer.consistency_weight=5
semi_nnunet plan -d 42 --set seed=1 --new-plans nnUNetPlans_again  # another seed
semi_nnunet plan -d 42 -c 3d_fullres --patch 80 112 112            # nnUNetPlans_80x112x112
semi_nnunet plan -d 42 -c 2d --spacing 0.8 0.8                     # nnUNetPlans_0p8x0p8mm
semi_nnunet plan -d 42 --budget cpu                                # nnUNetPlans_cpu
semi_nnunet plan -d 42 --architecture smp.Unet --encoder resnet50
```

* With `--new-plans`, `--patch`, `--spacing`, `--budget` or `--architecture`, new plans are written
  next to the old ones. Use them by name, as in `nnUNetv2_train ... -p nnUNetPlans_again`.
* A setting without a trainer's name is for all trainers. `TRAINER.SETTING` is for one.
* Planning again keeps what was given before. `--reset` forgets it.
* A typing error or a value out of range stops `plan`, and a training before its first step. The
  message has the nearest valid name, or the range.

The tables show each default with its reason. A *planned* default follows from the data set by a
rule. The value shown is that of an example with {labelled} labelled and {unlabelled} unlabelled
cases. Its patches have {patch} voxels, its median image {image}, and it has {classes} classes.

## Settings that are often changed

* **Small organs.** `class_weights_from=pseudo_labels` makes rare classes count more,
  `supervised_loss=dice_focal` weighs difficult voxels, and `locate_epochs=[300]` draws
  unlabelled patches, from epoch 300 on, where the network sees foreground.
* **Classes that mirroring confuses**, such as left and right: `mirror` is planned `false` where two
  classes are equally bright and lie in the same order in all labelled cases. Set it yourself where
  the plan does not notice.
* **Short trainings**: `optimizer=adam initial_lr=1e-3`, see
  [Getting started](getting_started.md).
* **A CPU with bfloat16** (`avx512_bf16` or `amx_bf16` in `lscpu`): `mixed_precision=bfloat16`
  trains about 1.4 times as fast. On another CPU it takes several times as long, and the training
  says so.
* **Fewer unlabelled images**: `filter_epochs=[500]` keeps the most certain tenth
  (`filter_keep`) of them from epoch 500 on.
"""


def page() -> str:
    """The whole page."""
    examples = {
        "labelled": EXAMPLE.labelled_cases,
        "unlabelled": EXAMPLE.unlabelled_cases,
        "patch": " x ".join(map(str, EXAMPLE.patch_size)),
        "image": " x ".join(map(str, EXAMPLE.median_shape)),
        "classes": EXAMPLE.foreground_classes,
    }
    common = {field.name: field for field in dataclasses.fields(SemiSettings)}
    parts = [HEAD.format(**examples), "## Settings of every trainer\n"]
    for topic in TOPICS:
        fields = [one for one in common.values() if find_topic(SemiSettings, one.name) == topic]
        if fields:
            parts += [f"### {topic[:1].upper()}{topic[1:]}\n", table(SemiSettings, fields)]
    parts.append("## Settings of single methods\n")
    for trainer, settings_class in settings_classes().items():
        own = [
            field
            for field in dataclasses.fields(settings_class)
            if field.name not in common or differs(field, common[field.name])
        ]
        if own:
            parts += [f"### {trainer}\n", table(settings_class, own)]
    return "\n".join(parts)


def differs(field: dataclasses.Field[Any], common: dataclasses.Field[Any]) -> bool:
    """Whether a method has another default, rule or reason than the other trainers."""
    return field.default != common.default or field.metadata != common.metadata


def table(settings_class: type, fields: Iterable[dataclasses.Field[Any]]) -> str:
    """Rows of name, default, allowed values and reason."""
    lines = ["| setting | default | allowed | why |", "|---|---|---|---|"]
    return "\n".join([*lines, *rows(settings_class, fields), ""])


def rows(settings_class: type, fields: Iterable[dataclasses.Field[Any]]) -> Iterator[str]:
    resolved = resolve(settings_class, EXAMPLE, {})
    values, hints = resolved.as_dict(), typing.get_type_hints(settings_class)
    for field in fields:
        value = shown(values[field.name])
        default = f"planned, here {value}" if "rule" in field.metadata else value
        cells = (
            f"`{field.name}`",
            default,
            allowed(field, hints[field.name]),
            resolved.reasons[field.name],
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def shown(value: Any) -> str:
    """A value as ``semi_nnunet plan --set`` takes it."""
    if value is None:
        return "none (`null`)"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:.4g}`"
    if isinstance(value, (list, tuple)):
        return f"`[{', '.join(str(one) for one in value)}]`"
    return f"`{value}`"


def allowed(field: dataclasses.Field[Any], hint: Any) -> str:
    """The choices, or the type and the range."""
    limits = field.metadata
    if limits["choices"] is not None:
        return ", ".join(shown(one) for one in limits["choices"])
    kinds = [one for one in (typing.get_args(hint) or (hint,)) if one not in (type(None), ...)]
    plural = typing.get_origin(hint) is tuple or any("tuple" in str(kind) for kind in kinds)
    kind = "bool" if bool in kinds else "int" if "int" in str(hint) else ""
    kind = kind or ("float" if "float" in str(hint) else "str")
    words = {"bool": "true or false", "int": "whole number", "float": "number", "str": "text"}[kind]
    if plural:
        words = {"int": "whole numbers", "float": "numbers", "str": "texts"}.get(kind, words)
    low, high, below = limits["low"], limits["high"], limits["below"]
    if low is not None and (high is not None or below is not None):
        return f"{words} from {low:g} to " + (f"{high:g}" if below is None else f"below {below:g}")
    if low is not None:
        return f"{words} from {low:g}"
    if high is not None or below is not None:
        return f"{words} up to {high:g}" if below is None else f"{words} below {below:g}"
    return words


if __name__ == "__main__":
    from generated_page import write_or_check  # of this folder

    sys.exit(write_or_check(PAGE, page()))
