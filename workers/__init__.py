"""The Celery app, the dispatcher, the reconciler and the runner process."""
