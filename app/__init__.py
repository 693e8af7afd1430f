"""The page. Imports sketch_core; nothing imports app."""
