"""What a run would do, find and cost, before it does any of it."""
