"""Worker side of every operation: joins images, encodings and the container."""
