"""Files that jobs produced."""
