"""Pure tensor functions: no trainer, no paths, torch only."""
