"""What was found, in sentences: the opening of the page, drawn from the same artifacts as its sections."""
