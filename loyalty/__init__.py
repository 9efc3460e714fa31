"""The domain: orders, rolling windows, RFM, tiers and contacts, folded event by event.

Pure: what goes in are validated events and instants, what comes out are values. Nothing here does I/O or
reads a clock. Times are epoch milliseconds (UTC), money is whole minor units of the program's currency, all
``int``.

``Rules`` decides, ``Packing`` keeps, ``batch`` computes the same a second time, from scratch, for comparing.
"""

from schemas import BUILT

# Before anything else of this package is imported, as there.
if BUILT is not None:
    __path__.insert(0, str(BUILT / "loyalty"))

from loyalty.customer import Customer
from loyalty.heads import Packed, PackedStateError
from loyalty.packing import Packing, page_numbers
from loyalty.program_change import Previous
from loyalty.rules import Rules
from loyalty.views import Change, CustomerView

__all__ = [
    "Change",
    "Customer",
    "CustomerView",
    "Packed",
    "PackedStateError",
    "Packing",
    "Previous",
    "Rules",
    "page_numbers",
]
