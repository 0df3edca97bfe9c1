"""Labelling by a language model: one question whose answer is parsed, or a likelihood per label."""
