"""The SDK: the daemon's verbs as methods, over the public API."""
