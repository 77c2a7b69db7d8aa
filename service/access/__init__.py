"""Who may do what: keys, scopes, rates, quotas, and the log of changes."""
