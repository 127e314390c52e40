"""Programs that this project did not write, started by the tests on free ports of 127.0.0.1: brokers and devices.

`make peers` installs them. One that is missing fails its tests; none is skipped.
"""
