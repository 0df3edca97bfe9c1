"""Models, fixtures and cases that several tests share."""
