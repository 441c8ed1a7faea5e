"""The verbs that make a job: submit, run, tune."""
