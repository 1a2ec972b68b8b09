"""Label unlabelled images with trained models, and train on the most certain of them."""
