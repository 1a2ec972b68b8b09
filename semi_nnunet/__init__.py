"""Semi-supervised nnU-Net v2: put unlabelled images into ``imagesUn``, then train as usual."""

__version__ = "0.2.0"
