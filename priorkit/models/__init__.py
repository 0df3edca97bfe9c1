"""Loading, building and saving transformers' models."""
