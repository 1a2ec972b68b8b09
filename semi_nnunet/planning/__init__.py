"""The stated rules by which settings follow from the data set."""
