"""Where data come from: folders, tars, and what packages bring."""
