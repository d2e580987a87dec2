"""Execute: train studies - controls, all pools, the second look, combinations, scales."""
