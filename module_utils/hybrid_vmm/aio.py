# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a coroutine so that Ctrl-C ends it in order: connections said goodbye to, locks given back."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")

#: Seconds until an interrupted task that did not end is cancelled again: wait_for() of Python 3.9 can swallow the first.
_AGAIN = 0.5


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end, as asyncio.run() does.

    Python before 3.11 raises KeyboardInterrupt wherever the loop just is, from where not every task recovers; here the
    main task is cancelled instead, as newer versions do.

    :raises KeyboardInterrupt: after SIGINT.
    """
    interrupted = False

    async def main() -> _T:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        assert task is not None

        def interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            task.cancel()
            loop.call_later(_AGAIN, interrupt)

        if threading.current_thread() is threading.main_thread():
            loop.add_signal_handler(signal.SIGINT, interrupt)
        return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
