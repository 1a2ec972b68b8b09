"""One paper, one file, one trainer; no method imports another."""
