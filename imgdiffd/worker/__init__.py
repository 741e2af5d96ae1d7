"""The worker process of one device: models that stay loaded, and a loop that runs batches."""
