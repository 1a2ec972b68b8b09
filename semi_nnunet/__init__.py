"""Semi-supervised training for nnU-Net v2: put unlabelled images into ``imagesUn`` and train as usual."""

__version__ = "0.1.0"
