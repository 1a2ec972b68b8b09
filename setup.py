"""What pyproject.toml cannot say: plans/ is installed as the package semi_nnunet.recipes."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["semi_nnunet", "semi_nnunet.*"]),  # not semi_nnunet_demo
        "semi_nnunet.recipes",
    ],
    package_dir={"semi_nnunet.recipes": "plans"},
)
