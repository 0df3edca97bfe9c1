"""LION: dual-level visual knowledge for decoder-only language models."""
