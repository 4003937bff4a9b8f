"""What is asked: problems, equations, coefficients, and the places where they are solved."""
