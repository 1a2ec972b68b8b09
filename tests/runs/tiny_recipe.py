"""A recipe that is followed in seconds."""

from __future__ import annotations

RECIPE = {
    "title": "Polyps that nobody saw",
    "converter": "kvasir",
    "options": {"incomplete": True},
    "labelled": {"number": 3, "seed": 0},
    "configurations": ["2d"],
    "trainers": ["SemiBaselineTrainer", "SemiMeanTeacherTrainer"],
    "settings": {
        **{"epochs": 2, "steps_per_epoch": 1, "validation_steps_per_epoch": 1},
        **{"save_every_epochs": 1, "mirror": False, "SemiMeanTeacherTrainer.ramp_up": "constant"},
    },
    "budget": "cpu",
    "seeds": 1,
    "published": [{"method": "Somebody's", "metric": "Dice", "value": 0.75, "source": "Table 1"}],
    "comparable": "not at all",
}
