"""Users' files: text, corpora, images, conversations and results."""
