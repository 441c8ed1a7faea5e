"""What a person may do to a job, one file a group of verbs.

Each verb checks, stores the wish with its event, and wakes the supervisor. A wish for a living process is stored as its
desired state; the job's state follows when the process has obeyed.
"""
