"""The training process's side of the job directory: what the daemon wants, the journal, the lock."""
