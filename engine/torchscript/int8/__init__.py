"""Programs that compute in int8: packed weights, and the operators of torch that read them."""
