"""How nnU-Net's stock commands find our trainers."""
