"""Verification of raw data sets: bytes, images, cases, domain and memory."""
