"""Batched views, on the training device: random ``sample_params``, deterministic ``apply``."""
