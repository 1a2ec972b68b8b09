"""Data sets to try the trainers on."""
