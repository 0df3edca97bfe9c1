"""Image-text-to-text models of any family of transformers, as their own processors use them."""
