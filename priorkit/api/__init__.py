"""The functions behind ``import priorkit``; the package exports them lazily."""
