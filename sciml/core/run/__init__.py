"""What an answer is: solvers' face, statuses, solutions, trainings, and their files."""
