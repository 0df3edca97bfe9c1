"""LLaVA: a projector between an image encoder and a language model."""
