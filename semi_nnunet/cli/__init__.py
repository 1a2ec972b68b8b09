"""The ``semi_nnunet`` command: one thin file per verb."""
