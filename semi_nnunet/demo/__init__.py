"""The demo: a phantom data set, two trainings, a table and pictures."""
