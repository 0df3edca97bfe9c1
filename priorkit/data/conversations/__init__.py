"""Conversations: LLaVA rows, task types, regions, packing of samples."""
