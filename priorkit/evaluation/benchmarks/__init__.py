"""Benchmarks as files: finding them and reading their items."""
