"""Artifacts, recipes, settings, errors, console, runtime; no torch at import."""
