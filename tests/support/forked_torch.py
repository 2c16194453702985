"""PyTorch in a forked process."""

import sys


def renew_thread_pool() -> None:
    """Build the thread pool of PyTorch again in a forked process, before a second thread of it computes.

    torch 2.13 does so by itself at the first computation, but without a lock (caffe2/utils/threadpool/
    pthreadpool-cpp.cc). Of the threads in which transformers 5 loads weights, one failed once with "Invalid thread
    pool". Only tests fork a process in which torch has computed.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(torch.get_num_threads())
