"""The contracts of nextclick: everything that crosses a process boundary.

Each file holds one contract as a frozen value with its codec. The JSON Schemas in `json/` are generated
from these types (`python -m schemas.publish`), the golden samples in `samples/` are what a producer or a
consumer in any language can check itself against.
"""
