"""The steps of the verbs that plan, prepare, train and compare: jobs of ``runs``, put together."""
