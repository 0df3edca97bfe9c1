"""Evaluating models on benchmarks."""
