"""The glyph world."""
