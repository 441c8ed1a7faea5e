"""Processes: the training's, and short-lived tools."""
