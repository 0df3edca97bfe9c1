"""Sections on evaluations: accuracy, differences between models, and examples."""
