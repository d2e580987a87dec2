"""What reads configurations: ``sections`` (models), ``registry`` (names), ``yaml_input``."""
