"""Options that verbs share: from the words of users to checked values."""
