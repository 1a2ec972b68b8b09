"""Verification of raw data sets: bytes, images, cases, names, domain and memory."""
