"""The reader study: a blinded page for readers, its key, their answers and their scores."""
