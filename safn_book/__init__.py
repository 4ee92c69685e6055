"""What the notebooks of the SAFN book share: run folders, comparisons, charts, and the build."""
