"""From a trained fold to a model that stock nnU-Net runs."""
