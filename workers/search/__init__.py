"""Searches: many recipes tried, each as a job of its own, and the best of them kept.

`coordinator` takes the steps, `sampling` finds what to try next, `outcome` reads what became of a
trial, `front` compares trials, `report` tells of them. Nothing here is kept between two steps.
"""
