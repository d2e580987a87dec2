"""Lays the shipped configurations into the package when a wheel is built; see pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConfigurations(build_py):
    """Copies ``configs`` to where an installed package looks for them."""

    def run(self):
        """Build the package; a checkout that is installed as it is has them beside it."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "djsandbox_ray", "configs")
            ignored = shutil.ignore_patterns("__pycache__", "workflows")
            shutil.copytree("configs", target, ignore=ignored, dirs_exist_ok=True)


setup(cmdclass={"build_py": WithConfigurations})
