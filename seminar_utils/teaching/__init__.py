"""What turns the package into a course: exercises, quizzes, figures and widgets for the notebooks."""
