"""Benchmarks and suites as data; the format is in README.md."""
