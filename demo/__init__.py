"""The demonstration behind `make demo`: LeNet-5 through the whole service, on real data."""
