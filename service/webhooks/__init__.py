"""`/v1/webhooks`: where the server tells what, and how telling went."""
