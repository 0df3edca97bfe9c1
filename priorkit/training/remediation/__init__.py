"""Encoder remediation (VisPRE stage I)."""
