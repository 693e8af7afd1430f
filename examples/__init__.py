"""Short scripts to read with the paper in hand; see README.md."""
