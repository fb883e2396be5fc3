"""The recipes, a readable file each: `python -m experiments.NAME`."""
