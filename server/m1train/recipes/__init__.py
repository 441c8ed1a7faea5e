"""The recipes that m1d brings, one folder each."""
