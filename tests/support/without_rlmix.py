"""The beginning of a program in which rlmix cannot be imported."""

BLOCKED = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] != "rlmix", name
sys.meta_path.insert(0, Blocked())
import torch
"""
