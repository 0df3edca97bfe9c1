"""Claims that are stated before they are run, and decided from artifacts by one rule."""
