"""What a model costs: bytes, parameters, multiply-accumulates, milliseconds."""
