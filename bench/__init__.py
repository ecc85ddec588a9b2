"""Speed of Holdfast, measured beside the usual alternatives: `make bench`."""
