"""From a raw data set to the best model and its proof, within a budget of hours."""
