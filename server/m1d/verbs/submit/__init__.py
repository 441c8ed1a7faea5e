"""Submitting: a request is checked (plan, of a recipe or of a program), completed by this machine, and stored."""
