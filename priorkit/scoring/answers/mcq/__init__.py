"""The parser of answers to multiple-choice questions."""
