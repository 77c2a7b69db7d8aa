"""Keys through the SDK and the command line, against a real server."""
