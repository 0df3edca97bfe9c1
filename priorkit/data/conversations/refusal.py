"""The sentence by which a model declines a question that cannot be answered without its image."""

REFUSAL = "I cannot tell without seeing the image."
"""Taught by ``blind-tune --abstain``. What counts as declining in an evaluation is decided by the phrases of
``scoring/refusals.txt``, of which it holds several."""
