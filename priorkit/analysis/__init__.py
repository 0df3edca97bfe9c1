"""Relating results: priors with accuracy, models with one another, mixtures with scores."""
