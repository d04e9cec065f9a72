"""The HTTP API: Meshy-shaped tasks, native jobs and batches, files, the web page's data."""
