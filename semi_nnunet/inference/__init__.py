"""Predict whole images with trained models, plane by plane, so that memory stays small."""
