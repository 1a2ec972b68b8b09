"""What a user can set: declared, planned by stated rules, and overridden in ``plans["semi"]``."""
