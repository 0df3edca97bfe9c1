"""Questions about scenes and about entities, with answers that follow from both."""
