"""Becomes a command that has a service manager's sockets from descriptor 3 on: sd_listen_fds(3).

usage: activate.py MANAGER NAME[:NAME...] COMMAND...    the sockets come over the Unix socket MANAGER
"""
import fcntl
import os
import socket
import sys

manager, names, *command = sys.argv[1:]
with socket.socket(socket.AF_UNIX) as stream:
    stream.connect(manager)
    _, received, _, _ = socket.recv_fds(stream, 1, 16)
# Out of the way first: they may have come as the very numbers that they are to have, in another order.
received = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 100) for descriptor in received]
for number, descriptor in enumerate(received, start=3):
    os.dup2(descriptor, number)
os.environ.update(LISTEN_FDS=str(len(received)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=names)
os.execvp(command[0], command)
