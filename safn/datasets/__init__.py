"""Ways to get a data folder in the VOC layout."""
