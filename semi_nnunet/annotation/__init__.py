"""Accept reviewed labels into a data set, round by round, and take the last round back."""
