"""Telling webhooks: which addresses may be called, how a message is signed and sent, and when."""
