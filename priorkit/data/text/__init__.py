"""Text documents, segments and concept labels."""
