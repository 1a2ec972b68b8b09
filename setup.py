"""What pyproject.toml cannot say.

plans/ is installed as the package semi_nnunet.recipes, and a file next to the package lets nnU-Net
find our trainers in every shell. pip removes that file with the package.
"""

import runpy
from pathlib import Path

from setuptools import Command, find_packages, setup
from setuptools.command.build import build

DISCOVERY = Path(__file__).resolve().parent / "semi_nnunet" / "discovery"
STARTUP = runpy.run_path(str(DISCOVERY / "startup_line.py"))


class BuildStartupFile(Command):
    """Write the file: next to the package, or into the wheel of an editable installation.

    The methods and ``editable_mode`` are those that setuptools expects of a step of the build.
    """

    def initialize_options(self):
        self.build_lib, self.editable_mode = None, False

    def finalize_options(self):
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self):
        folder, place = STARTUP["IN_SITE_PACKAGES"], self.build_lib
        if self.editable_mode:
            folder = ascii(str(DISCOVERY / "trainers"))
            place = self.get_finalized_command("install").install_lib
        Path(place).mkdir(parents=True, exist_ok=True)
        line = STARTUP["startup_line"](folder)
        Path(place, STARTUP["FILE"]).write_text(line, encoding="ascii")

    def get_outputs(self):
        return [] if self.editable_mode else [str(Path(self.build_lib, STARTUP["FILE"]))]

    def get_output_mapping(self):
        return {}

    def get_source_files(self):
        return []


class BuildWithStartupFile(build):
    """Build the package and the file."""

    sub_commands = (*build.sub_commands, ("build_startup_file", None))


setup(
    packages=[
        *find_packages(include=["semi_nnunet", "semi_nnunet.*"]),  # not semi_nnunet_demo
        "semi_nnunet.recipes",
    ],
    package_dir={"semi_nnunet.recipes": "plans"},
    cmdclass={"build": BuildWithStartupFile, "build_startup_file": BuildStartupFile},
)
