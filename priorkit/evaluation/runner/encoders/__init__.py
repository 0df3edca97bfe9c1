"""Putting a benchmark's items to an encoder."""
