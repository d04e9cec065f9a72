"""The service's commands, one file each, registered by `worker.cli`."""
