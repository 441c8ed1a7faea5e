"""The gRPC services: each translates a call, asks the daemon's own modules, and translates back. No logic here."""
