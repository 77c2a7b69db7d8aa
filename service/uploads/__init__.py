"""Receiving files in constant memory."""
