"""Multimodal models."""
