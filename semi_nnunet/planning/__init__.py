"""Plans: networks, patches and settings that follow from the data set."""
