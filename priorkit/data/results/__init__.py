"""Results on disk: evaluations, scores, and the artifacts they came from."""
