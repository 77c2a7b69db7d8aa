"""The limits of this server."""
