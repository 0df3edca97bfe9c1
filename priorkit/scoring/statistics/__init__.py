"""Intervals, correlation, agreement, response surfaces."""
