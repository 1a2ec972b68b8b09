"""Networks that are no plain nnU-Net."""
