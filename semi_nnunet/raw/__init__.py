"""Raw data sets: description and names of files, readers, folds and splits."""
