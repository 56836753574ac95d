"""Source: one network as one readable module, made from the project's own source text."""
