"""A job as the daemon knows it: its data, its states, the checkpoint that it begins with."""
