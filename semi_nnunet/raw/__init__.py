"""Raw data sets: description, readers, folds and splits."""
