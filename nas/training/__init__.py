"""Training: data, sampled networks, the loop, checkpoints, and the evaluation of what was trained."""
