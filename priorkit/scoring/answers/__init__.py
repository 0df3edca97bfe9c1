"""Scores of answers: parsing and the official metrics."""
