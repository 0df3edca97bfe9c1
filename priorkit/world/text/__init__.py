"""Text sources of the world."""
