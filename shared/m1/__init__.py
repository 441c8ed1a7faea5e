"""What the daemon, the training process and the client agree on. Imports neither of the three, nor torch."""
