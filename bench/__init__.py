"""How fast Holdfast is, beside what people would pick instead: `make bench`."""
