"""Architectures of multimodal models: how each is built, tuned and asked, behind one protocol."""
