# SPDX-License-Identifier: Apache-2.0
"""Imported by tests of what signals do to a program.

Who started the tests with nohup, or in the background of a script, ignores some signals. Programs
inherit that, and some leave it so."""
import signal

for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
