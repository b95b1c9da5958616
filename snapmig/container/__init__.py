"""The snapshot file: its layout, its tables and its commit. Knows nothing of compression."""
