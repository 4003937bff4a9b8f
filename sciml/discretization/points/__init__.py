"""The equation at scattered points, for functions that can be differentiated."""
