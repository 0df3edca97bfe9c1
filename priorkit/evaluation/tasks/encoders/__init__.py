"""Task types that only encoders answer, by similarity."""
