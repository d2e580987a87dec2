"""The cluster: the connection to Ray, kinds of nodes, what fits where, and waiting for room."""
