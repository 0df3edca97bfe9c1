"""Entities, scenes and their pictures."""
