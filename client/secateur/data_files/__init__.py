"""What files of a dataset mean: read alike by the service, which checks them, and the engine."""
