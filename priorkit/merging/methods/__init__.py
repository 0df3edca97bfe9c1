"""Merge methods and their table."""
