"""From a raw data set to the best model, checked on other cases, within a budget of hours."""
