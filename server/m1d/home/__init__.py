"""The home: its directory, configuration, log; and the service manager's side."""
