"""Plans of trainings that take a second."""

TINY = {
    "epochs": 2, "steps_per_epoch": 1, "validation_steps_per_epoch": 1, "save_every_epochs": 1,
    "ramp_up": "constant", "unlabelled_start_steps": 0,
}  # fmt: skip
