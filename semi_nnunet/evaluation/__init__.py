"""Metrics of segmentations per case and class, tables of them, and paired comparisons."""
