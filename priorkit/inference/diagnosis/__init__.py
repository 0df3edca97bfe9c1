"""What a multimodal model holds of an entity: states along its parts, names that it says, facts that it knows."""
