"""Data sets in the layouts they are published in, as rows that the steps read."""
