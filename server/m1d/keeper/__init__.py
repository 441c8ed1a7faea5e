"""The keeper: a small process that looks after one attempt of a program, as the training process does of a recipe's.

It holds the job's lock, starts the program, takes in what it prints, and writes to the journal how it ended. So a
program outlives the daemon as a training does, and the daemon treats both alike.
"""
