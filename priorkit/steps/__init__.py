"""One file per step: its settings and its run()."""
