"""Lottery tickets: sparse networks that train from their initial weights."""
