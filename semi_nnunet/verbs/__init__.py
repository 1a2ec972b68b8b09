"""The front door: every verb of ``semi_nnunet`` is one function, with its options and its steps."""
