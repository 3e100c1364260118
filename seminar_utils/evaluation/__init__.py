"""How to evaluate for the clinic: shifts, streams, metrics, intervals and the results store."""
