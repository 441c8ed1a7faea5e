"""One life of the training process for a job, from its directory to its last record."""
