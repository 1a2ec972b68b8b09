"""Data sets: a phantom to try the trainers on, and converters of published benchmarks."""
