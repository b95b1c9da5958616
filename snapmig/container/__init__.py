"""The snapshot file: its places, its tables and its commit; knows nothing of compression."""
