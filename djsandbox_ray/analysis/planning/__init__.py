"""Before a study: what it will be able to see, and what it takes to see more."""
