"""Contains only the file that nnU-Net searches."""
