"""The version of this code, as it is written into what it makes."""

from importlib.metadata import PackageNotFoundError, version

try:
    CODE_VERSION = version("trce-service")
except PackageNotFoundError:  # run from a folder that was never installed
    CODE_VERSION = "unknown"
