"""Measures of where a multimodal model loses what an image shows: encoder, projector, language, answer."""
