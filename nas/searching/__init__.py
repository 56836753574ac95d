"""Search: architectures as Optuna's parameters, the objective under a budget, the study, its samplers and workers."""
