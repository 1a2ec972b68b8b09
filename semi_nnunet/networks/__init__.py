"""Networks besides those of nnU-Net."""
