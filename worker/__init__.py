"""The job engine: Celery tasks, job store and HTTP service.

The database is the queue of record, the broker only a doorbell. `worker.queue` holds the guarantees,
`worker.jobs` is what the front doors (HTTP, command line, batch) call.
"""
