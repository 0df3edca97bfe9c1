"""Sections on priors: Rank_e, what remediation changed, and how priors relate to accuracy."""
