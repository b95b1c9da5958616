"""Guest RAM images: sources and destinations of pages. Knows no snapshot."""
