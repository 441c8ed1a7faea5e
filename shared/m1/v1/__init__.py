"""Generated from proto/m1/v1 by `make proto`; never edited by hand."""
