"""Tests of priorkit."""
