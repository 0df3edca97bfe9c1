"""MLE-Bench: multiple-choice questions about what an image shows, from annotated images."""
