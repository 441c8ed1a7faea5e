"""The training itself, for any task: batches, steps, the loop, the evaluation."""
