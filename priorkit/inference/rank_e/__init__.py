"""Rank_e: features of entity images, ranks by names or centroids, and the tables of an artifact."""
