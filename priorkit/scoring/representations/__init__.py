"""Ranks and similarity of representations."""
