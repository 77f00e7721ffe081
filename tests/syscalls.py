"""Kills a process at a chosen system call that changes the disk."""

import ctypes
import functools
import os
import pickle
import platform
import signal
import struct
import sys
import traceback

import pytest
import torch

# Numbers of the system calls that change the disk. Those of the second dictionary count only if
# their first argument is a file that is open for writing. The third one has the calls that open a
# file, with the position of their flags.
CALLS = {
    "x86_64": (
        {76: "truncate", 82: "rename", 83: "mkdir", 84: "rmdir", 85: "creat", 86: "link",
         87: "unlink", 88: "symlink", 258: "mkdirat", 263: "unlinkat", 264: "renameat",
         265: "linkat", 266: "symlinkat", 316: "renameat2", 74: "fsync", 75: "fdatasync"},
        {1: "write", 3: "close", 18: "pwrite64", 20: "writev", 40: "sendfile", 77: "ftruncate",
         285: "fallocate", 296: "pwritev", 326: "copy_file_range"},
        {2: ("open", 1), 257: ("openat", 2)},
    ),
    "aarch64": (
        {34: "mkdirat", 35: "unlinkat", 36: "symlinkat", 37: "linkat", 38: "renameat",
         45: "truncate", 276: "renameat2", 82: "fsync", 83: "fdatasync"},
        {46: "ftruncate", 47: "fallocate", 57: "close", 64: "write", 66: "writev",
         68: "pwrite64", 70: "pwritev", 71: "sendfile", 285: "copy_file_range"},
        {56: ("openat", 2)},
    ),
}  # fmt: skip
TRACEME, SYSCALL, SETOPTIONS, SYSCALL_INFO = 0, 24, 0x4200, 0x420E  # of linux/ptrace.h
MARK_SYSCALLS, KILL_WITH_TRACER = 0x1, 0x100000
EXIT = 2  # the child was stopped at the end of a call; otherwise at its beginning
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def ptrace(request, pid, address=0, data=0):
    function = ctypes.CDLL(None, use_errno=True).ptrace
    function.restype = ctypes.c_long
    function.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    result = function(request, pid, address, data)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"ptrace: {os.strerror(ctypes.get_errno())}")
    return result


def fork(function):
    """Forks a child that calls the function and ends; returns its process number."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            torch.set_num_threads(1)  # the child does not have the threads of its parent
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def in_child(function):
    """Calls a function in a forked process and returns its result."""
    read, write = os.pipe()

    def call():
        with open(write, "wb") as file:
            pickle.dump(function(), file)

    pid = fork(call)
    os.close(write)
    with open(read, "rb") as file:
        result = file.read()
    assert os.waitpid(pid, 0)[1] == 0, "the child has failed: see its traceback"
    return pickle.loads(result)


@functools.cache
def skip_without_ptrace():
    """Skips the test if a process may not trace its children."""
    if sys.platform != "linux" or platform.machine() not in CALLS:
        pytest.skip(f"the system calls of {sys.platform} on {platform.machine()} are not known")
    status = os.waitpid(fork(lambda: ptrace(TRACEME, 0)), 0)[1]
    if status != 0:
        pytest.skip("ptrace is not permitted here")


def disk_calls(prepare, kill_at=None):
    """Records the system calls by which a child changes the disk. May kill it at one of them.

    Arguments
    ---------
    prepare : callable
        Called in the child; returns the function whose system calls are recorded.
    kill_at : int or None
        The child gets SIGKILL just before the call of this number, counted from 0.

    Returns
    -------
    calls : list of str
        Names of the calls. If the child was killed, it has not made the last one.
    """
    skip_without_ptrace()
    always, on_files, opening = CALLS[platform.machine()]

    def traced():
        change = prepare()
        ptrace(TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        change()

    pid = fork(traced)
    status = os.waitpid(pid, os.WUNTRACED)[1]
    assert os.WIFSTOPPED(status), "the child has failed: see its traceback"
    ptrace(SETOPTIONS, pid, 0, MARK_SYSCALLS | KILL_WITH_TRACER)
    info = ctypes.create_string_buffer(96)
    calls, written_files, opens, pass_on = [], set(), False, 0
    while True:
        ptrace(SYSCALL, pid, 0, pass_on)
        status = os.waitpid(pid, 0)[1]
        if not os.WIFSTOPPED(status):
            assert status == 0, f"the child has failed with status {status}"
            return calls
        pass_on = os.WSTOPSIG(status)
        if pass_on != signal.SIGTRAP | 0x80:
            continue
        pass_on = 0
        ptrace(SYSCALL_INFO, pid, len(info), ctypes.addressof(info))
        if info.raw[0] == EXIT:
            if opens:
                written_files.add(struct.unpack_from("<q", info.raw, 24)[0])
            opens = False
            continue
        number, *arguments = struct.unpack_from("<7Q", info.raw, 24)
        if number in opening:
            name, flags = opening[number]
            opens = bool(arguments[flags] & WRITING)
            name = name if opens else None
        elif number in on_files:
            name = on_files[number] if arguments[0] in written_files else None
            if on_files[number] == "close":
                written_files.discard(arguments[0])
        else:
            name = always.get(number)
        if name is not None:
            calls.append(name)
            if len(calls) - 1 == kill_at:
                os.kill(pid, signal.SIGKILL)
                assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
                return calls
