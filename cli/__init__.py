"""`holdfast`, the command line: a client of the API. Only `send` and `doctor` read the settings of this machine."""
