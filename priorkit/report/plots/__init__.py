"""Plain values in, a figure out; one file per subject."""
