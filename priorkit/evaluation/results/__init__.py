"""From answers to metrics, files and comparisons."""
