"""What a person's input is bounded by, declared once: for who asks, who checks and who stores."""

from __future__ import annotations

import re

# A job
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""A job's name, and a data set's."""
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
POINTS, MOST_POINTS = 1000, 10_000

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
