"""Training on conversations: align, tune, blind-tune."""
