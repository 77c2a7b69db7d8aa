"""Jobs: made, watched, cancelled, and what they leave behind."""
