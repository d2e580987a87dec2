"""What configurations are read with: ``sections`` (models), ``registry`` (names), ``yaml_input``."""
