"""`holdfast`, the command line: it asks the API with a key, as any program may; `send`, `doctor` read the settings."""
