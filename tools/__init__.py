"""Programs for those who develop the service; nothing here runs in it."""
