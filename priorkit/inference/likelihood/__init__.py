"""Log-probabilities of continuations: requests, and how they pass a model."""
