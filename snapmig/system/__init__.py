"""Linux calls that Python does not offer, and file habits; knows nothing of guests."""
