"""The training process's side of the job directory: obedience and results; the rest is m1.process."""
