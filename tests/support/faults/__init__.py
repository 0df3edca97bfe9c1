"""Faults injected into priorkit: flipped bits, kills, malformed inputs, full disks, closed streams."""
