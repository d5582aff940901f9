"""How bytes travel: one file per way, all behind `Transport`; the reports go to a `Receiver`.

A transport connects, sends and closes, and knows nothing of probes. A receiver (the driver) is told what happened, one
call at a time; `OSError` is passed on as it is, because what it means for a scan is the driver's business.
"""

from engine.transports.base import Receiver, Transport

__all__ = ["Receiver", "Transport"]
