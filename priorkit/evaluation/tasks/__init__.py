"""Task types: what truth an item needs, how an answer is read and scored, one family per file."""
