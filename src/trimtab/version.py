"""The version of trimtab: deltas and caches carry it, the package's metadata read it from here.

Not asked of the metadata, which are not there where a checkout is put on the path without being installed.
"""

VERSION = "0.1.0.dev0"
