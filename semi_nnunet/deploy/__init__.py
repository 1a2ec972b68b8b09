"""Find, load, export and install trained models, also without this package's trainers."""
