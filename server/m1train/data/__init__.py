"""Datasets: where images come from, and the cache in which they are read once. Torch-free."""
