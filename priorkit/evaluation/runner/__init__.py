"""Putting items to models and collecting answers."""
