"""Many trainings as a list of jobs: resumable, side by side, on this machine or a cluster."""
