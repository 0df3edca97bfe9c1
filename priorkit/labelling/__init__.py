"""Concept labels for text and instructions, by a language model or a linear classifier."""
