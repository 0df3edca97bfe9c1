"""Tokenization, mixing and packing of text into corpora."""
