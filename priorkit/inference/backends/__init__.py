"""Programs that run a model on prompts of text and images: transformers, vLLM."""
