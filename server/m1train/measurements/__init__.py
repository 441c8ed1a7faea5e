"""Jobs that measure this machine: their settings as data. What they do stands beside, and imports torch."""
