"""Faster forms of single operations: attention, cross-entropy, activations."""
