"""What pools do together: combinations, interactions, clusters, the winner."""
