"""What is there to train with: recipes, datasets, profiles."""
