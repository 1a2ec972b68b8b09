"""Nothing but the one file that nnU-Net searches."""
