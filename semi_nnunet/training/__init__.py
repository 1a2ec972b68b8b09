"""Training: the base classes of all trainers, and the parts that they hand their work to."""
