"""Taps of layers, and connectors between features."""
