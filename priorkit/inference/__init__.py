"""Models applied to data: features of images, likelihoods, generation."""
