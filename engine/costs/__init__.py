"""What a model costs after a removal, and the amount at which a cost is reached."""
