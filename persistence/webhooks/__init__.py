"""Webhooks: who is told, what is to be told, and how telling went.

`subscriptions` holds the webhooks of a tenant, `announcements` writes what they are to be told in
the transaction that made it true, `deliveries` hands it to whoever sends and notes what came of it.
"""
