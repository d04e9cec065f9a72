"""The job engine: Celery tasks, job store and HTTP service."""
