"""What competition by agreement is worth: trainings, controls, and where it costs."""
