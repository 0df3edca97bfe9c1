"""Causal language models, tokenizers and chat templates."""
