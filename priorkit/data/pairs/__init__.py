"""Image-text pairs: read from tables, captions and shards, kept on disk."""
