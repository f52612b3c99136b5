"""What competition and coordination do when levels contradict each other."""
