"""Quantisation and weight sharing: fewer bits for each weight, in files that stock torch loads."""
