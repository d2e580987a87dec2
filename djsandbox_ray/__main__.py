"""``python -m djsandbox_ray`` is ``djsandbox``."""

from djsandbox_ray.cli import main

if __name__ == "__main__":
    main()
