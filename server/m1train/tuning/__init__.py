"""`m1ctl tune`: which profile trains a recipe fastest here. What is offered, how it is searched, how it is timed."""
