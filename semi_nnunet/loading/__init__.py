"""Loading: a batch is a function of seed, stream, step and rank."""
