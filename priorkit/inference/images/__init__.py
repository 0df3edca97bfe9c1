"""Vision models applied to images: features with a cache, and tags."""
