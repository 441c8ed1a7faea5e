"""What a person may do to a job."""
