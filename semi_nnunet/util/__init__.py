"""Helpers that know nothing of images or training: errors, files, processes, locks, progress."""
