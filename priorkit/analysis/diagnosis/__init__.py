"""Diagnosis: which part of a multimodal model fails on an entity, from evidence, and what would help."""
