"""Checks of the inputs of a merge: whether they belong together and are complete."""
