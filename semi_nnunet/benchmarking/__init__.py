"""The cost of a training step on a machine: time, floating-point operations, loading, memory."""
