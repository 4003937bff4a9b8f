"""What a problem leaves open, found from observations of its answer."""
