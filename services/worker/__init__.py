"""Worker: takes jobs from the queue and runs the turns of agents."""
