"""Pretraining of language models and encoders."""
