"""Batched views, computed on the training device: random ``sample_params`` apart from deterministic ``apply``."""
