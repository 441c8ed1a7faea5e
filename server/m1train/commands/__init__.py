"""What the training process's command line does, one file a command."""
