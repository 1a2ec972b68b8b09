"""Finds the trainers: ours, nnU-Net's and the user's; and lets nnU-Net's commands find ours."""
