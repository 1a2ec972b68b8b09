"""Preprocessing of a data set for training, in shards if asked for."""
