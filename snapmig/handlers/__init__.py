"""What workers do to packets, and in which batches: joins images, encodings and the container."""
