"""What a person's input is bounded by, declared once: for who asks, who checks and who stores."""

from __future__ import annotations

import re

# A job
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""A job's name, and a dataset's."""
JOB_ID = re.compile(r"j[1-9][0-9]{0,15}")
PRIORITY = 1000
"""From -PRIORITY to PRIORITY."""
DEFAULT_RETRIES, MOST_RETRIES = 2, 1000
REQUEST_ID_CHARACTERS = 128

# A recipe's file
RECIPE_FILE_BYTES = 2**20
RECIPE_FILE_NAME_BYTES = 128

# A program
COMMAND_BYTES = 2**15
"""The program and all arguments."""
ENVIRONMENT_BYTES = 2**15
"""What is set beside what the daemon passes on."""

# Pages and series
PAGE, MOST_PAGE = 100, 1000
PAGE_BYTES = 2**20
"""About as much as one message of a list or a watch has, unless a single entry is larger."""
POINTS, MOST_POINTS = 1000, 10_000

# What a job says
RECORD_BYTES = 2**20
"""The largest record that is written to a journal; a message with a job or an event then stays below gRPC's limit."""
MOST_METRICS = 1000
"""Of one job, by name."""
METRIC_NAME_BYTES = 200
SETTINGS_BYTES = 2**18
"""All settings of a job together, as they are sent."""
SENTENCE_CHARACTERS = 2000
"""A notice, or why a job is in its state."""
MOST_DIFFERENCES = 64
"""Sentences on why a job is approximate."""

# Results
RESULT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
RESULT_BYTES = 8 * 2**20
MOST_RESULTS = 64
"""Of one job."""

# A question to a model
MOST_INPUTS = 1000
"""Files of one call."""
INPUT_BYTES = 2**17
"""Of all their paths together: they become one command line."""
