"""Checkpoints: their files, what goes into them, and what comes out of them again."""
