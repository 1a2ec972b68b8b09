"""What ``semi_nnunet demo`` shows: a phantom data set, two trainings, a table and pictures."""
