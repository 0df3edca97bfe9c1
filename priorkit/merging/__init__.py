"""Merging weights: tensors to tensors."""
