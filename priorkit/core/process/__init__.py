"""The running process: device, ranks, memory, seeds, progress."""
