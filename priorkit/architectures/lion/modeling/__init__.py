"""The modules of LION, its configuration and its processor."""
