"""Language models merged into the language part of multimodal models."""
