"""What is there to train with: recipes, data sets, profiles."""
