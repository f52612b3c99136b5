"""The agreement study: trainings, controls, and the cases in which competition by agreement loses."""
