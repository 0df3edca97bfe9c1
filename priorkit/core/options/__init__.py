"""The declaration of options: settings models, recipes, and what is derived from them."""
