"""Break everything, again and again, under real traffic, and then count: `make chaos`."""
