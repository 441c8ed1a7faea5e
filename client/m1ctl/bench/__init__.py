"""`m1ctl bench`: the project measures itself."""
