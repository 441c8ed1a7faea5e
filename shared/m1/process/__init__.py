"""The job's directory in the hands of the process that carries out the job: lock, journal, what the daemon wants."""
