"""Recipes of published experiments; installed as the package ``semi_nnunet.recipes``."""
