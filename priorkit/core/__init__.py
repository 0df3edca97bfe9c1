"""Artifacts, recipes, settings, errors, progress, runtime; no torch at import."""
