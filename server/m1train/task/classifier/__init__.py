"""Classifiers of images: the short form of a task, with its augmentation and metrics."""
