"""The verbs, one module a group: parse, call the SDK, print."""
