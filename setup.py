"""The package list: ``passes/`` and ``runtime/`` are folders at the root and install inside ``ozgraph``."""

from setuptools import find_packages, setup

MOUNTED = {"passes": "ozgraph.passes", "runtime": "ozgraph.runtime"}

setup(
    packages=[
        *find_packages(include=["ozgraph", "ozgraph.*"]),
        *MOUNTED.values(),
        *(f"{mount}.{name}" for folder, mount in MOUNTED.items() for name in find_packages(folder)),
    ],
)
