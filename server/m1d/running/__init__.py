"""Running jobs: whose turn it is, what the training process says, what follows from its end."""
