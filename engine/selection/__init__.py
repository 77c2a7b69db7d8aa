"""Selection: which units go, given their scores."""
