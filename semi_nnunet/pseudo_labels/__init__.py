"""Label images that nobody labelled, with trained models, and train on the trustworthy part."""
