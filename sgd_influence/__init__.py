"""The stages of a run in the order data flows: train, infl, eval, analyze."""
