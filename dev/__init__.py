"""Tools for developing and trying Holdfast; nothing in production imports this package."""
