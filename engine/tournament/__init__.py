"""Tournaments: every criterion at the same cost, and the best one after a short recovery."""
