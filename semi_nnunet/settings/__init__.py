"""Settings: declared, planned by stated rules, and overridden in ``plans["semi"]``."""
