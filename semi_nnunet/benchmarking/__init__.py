"""What a training step costs on a machine: time, floating-point operations, loading, memory."""
