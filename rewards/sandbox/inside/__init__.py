"""What runs inside the sandbox's own processes: namespaces, limits, and the supervisor of the untrusted commands.

Started by path in an isolated interpreter (`python -I -S`), so these modules import each other and nothing else of the
package. They also leave out json, re, signal and dataclasses, whose imports would double the start of a sandbox.
"""
