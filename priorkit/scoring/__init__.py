"""Pure functions: features or texts to ranks, metrics, correlations, intervals."""
