"""The machine: cores, load, memory, power, as they are."""
