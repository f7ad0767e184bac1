"""Package list and console commands; pinned dependencies are in requirements/."""

from setuptools import find_packages, setup

setup(
    name="nightly-product-labeller",
    version="0.1.0",
    description="Labels a shop's whole catalogue from its own click log, every night",
    python_requires=">=3.11,<3.12",
    packages=find_packages(include=["etl", "etl.*", "model", "model.*", "labeling", "labeling.*"]),
    package_data={"etl": ["log4j2.properties"], "model": ["*.json", "templates/*"], "labeling": ["report/templates/*"]},
    # What model.online, the query side of an online service, runs with; the jobs' own are in requirements/.
    extras_require={"online": ["numpy>=1.26", "onnxruntime>=1.16", "opencc", "tokenizers>=0.23"]},
    entry_points={
        "console_scripts": [
            "labeller = labeling.cli:main",
            "label = labeling.label_title:main",
        ]
    },
)
