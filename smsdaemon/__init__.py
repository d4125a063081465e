"""Receives SMS over HTTP(S), stores them durably and routes them to ACD groups and applications."""

from importlib.metadata import version

__version__ = version("smsdaemon")
