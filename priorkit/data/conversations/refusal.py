"""The sentence with which a model declines a question that cannot be answered without its image."""

REFUSAL = "I cannot tell without seeing the image."
"""Taught by ``blind-tune --abstain``. An evaluation recognizes abstention by the phrases of
``scoring/refusals.txt``; the sentence contains several of them."""
