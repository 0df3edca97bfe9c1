"""Putting prompts to a back end, and which one a model gets."""
